"""Searches of real processes: killed, stopped, several at once, without the test images."""

import json
import re
import shlex
import signal
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from src.models.classifier import Batch
from src.tuning.study import finished, ranked
from tests.conftest import CURVES_ALONE, LETTERS, ROOT, RunCLI
from tests.forks import Fork, command_line_with_forked_trainings
from tests.tensorboard.conftest import serve
from tests.tensorboard.test_tensorboard import Page, text
from tests.tiny import Tiny
from tests.tuning.conftest import ENDED, SEARCH, SETTINGS, TINY, study, with_result

WIDE = "data.max_shift: {int: [0, 9]}\n"


def args_of(folder: Path, data: list[str], *args: str) -> list[str]:
    """The command line of a search in `folder`."""
    if not (folder / "search.yaml").exists():
        (folder / "search.yaml").write_text(SEARCH)
    return [*TINY, f"--search={folder}/search.yaml", f"--output={folder}", "--name=it", *data, *args]


def other_data(letters: Path) -> list[str]:
    """A small set of images, of which 100 are held out."""
    return [f"--data.data_dir={letters}", f"--data.classes={LETTERS}", "--data.val_size=100"]


def any_file(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


def let_the_grace_period_end(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "study.db")) as database, database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')")


@pytest.fixture(scope="module")
def killed(training_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of six trials, killed in one of them and once among the fresh seeds, without the test images."""
    folder = tmp_path_factory.mktemp("a killed one")  # a name with spaces
    args = args_of(folder, [f"--data.data_dir={training_images}"], "--trainer.limit_train_batches=20", "--fresh=2")
    for victim in ("trials/trial_001/seed_0/config.yaml", "fresh/*/*/run_0/config.yaml"):
        process = Fork(folder, *args, "--trials=5")
        process.wait_until(partial(any_file, folder / "it", victim))
        process.kill()
        assert process.wait().code == -signal.SIGKILL
    # The second process did not wait for the killed trial.
    assert [len(with_result(folder / "it", *states)) for states in (ENDED, [TrialState.RUNNING])] == [5, 1]
    let_the_grace_period_end(folder / "it")
    (folder / "last.log").write_text(Fork(folder, *args, "--trials=6").finish())
    return folder / "it"


def test_a_killed_trial_is_tried_again_from_its_start(killed: Path) -> None:
    trials = study(killed).get_trials()
    assert [trial.state in ENDED for trial in trials] == [True, False, True, True, True, True, True]
    assert trials[1].state == TrialState.FAIL
    assert trials[6].params == trials[1].params
    assert (killed / "trials" / "trial_006" / "seed_0" / "config.yaml").exists()


def test_finished_runs_with_fresh_seeds_are_not_trained_again(killed: Path) -> None:
    ended = [
        re.findall(r"^Fresh seed (\d) of (Trial \d): \d+ errors$", path.read_text(), re.MULTILINE)
        for path in sorted(killed.parent.glob("*.out"))
    ]
    runs = sum(ended, [])
    assert len(set(runs)) == len(runs) == len(list(killed.glob("fresh/*/*/errors.json")))
    results = json.loads((killed / "results.json").read_text())
    assert [len(errors) for errors in results["fresh"].values()] == [2, 2]


def test_the_test_images_are_never_read(killed: Path, training_images: Path) -> None:
    """They are not there, and were not downloaded either."""
    assert (killed / "results.json").exists()
    assert [path.name for path in training_images.rglob("t10k*")] == []


def test_the_printed_command_trains_as_the_best_trial_did(killed: Path, cli: RunCLI, mnist: Path) -> None:
    command = re.search(r"^Train the best: python -m src (.+)$", (killed.parent / "last.log").read_text(), re.MULTILINE)
    assert command
    limits = ("--trainer.limit_train_batches=20", "--trainer.limit_test_batches=1", "--data.val_size=500")
    outcome = cli(*shlex.split(command[1]), CURVES_ALONE, *limits, f"--data.data_dir={mnist}")
    assert outcome.code == 0, outcome.err
    results = json.loads((outcome.run / "results.json").read_text())
    best = study(killed).trials[int(re.findall(r"^# Trial (\d+) of", (killed / "best.yaml").read_text())[0])]
    assert best.value is not None
    assert results["curves"]["accuracy"]["validation"]["2"] == pytest.approx(1 - best.value / 500)


def test_best_yaml_is_for_all_images(killed: Path) -> None:
    config = yaml.safe_load((killed / "best.yaml").read_text())
    assert (config["data"]["init_args"]["val_size"], config["trainer"]["limit_train_batches"]) == (0, None)


def test_the_end_tells_the_table_and_how_sure_it_is(killed: Path) -> None:
    said = (killed.parent / "last.log").read_text()
    trials = ranked(study(killed))
    rows = re.findall(r"^ *(\d+) +(\d+\.\d) +\S+ +(\d+) +(\d)$", said, re.MULTILINE)
    assert [(int(row[0]), float(row[1])) for row in rows] == [(t.number, t.value) for t in trials]
    results = json.loads((killed / "results.json").read_text())
    assert [len(errors) for errors in results["fresh"].values()] == [2, 2]
    for name, errors in results["fresh"].items():
        mean, sd = np.mean(errors), np.std(errors, ddof=1)
        assert f"With 2 fresh seeds, {name} makes {mean:.1f} ± {sd:.1f} errors." in said
    assert not any(yaml.safe_load(next(killed.rglob("seed_0/config.yaml")).read_text())["tensorboard"].values())
    assert (killed / "history.png").stat().st_size > 5000


def test_tensorboard_shows_the_search_as_table_and_parallel_coordinates(killed: Path, browser: Any) -> None:
    complete = with_result(killed, TrialState.COMPLETE)
    with serve(killed, "scalars/tags", b'"held_out_errors"', len(complete)) as address:
        page = Page(browser, f"{address}/#hparams")
        names = [f"trials/trial_{trial.number:03d}" for trial in with_result(killed, *ENDED)]
        page.wait(lambda: page.shows(*names, *SETTINGS, "held_out_errors"))
        shown = {float(word) for word in page.texts() if re.fullmatch(r"\d+\.\d+", word)}
        assert {trial.value for trial in complete} <= shown
        view = next(tab for tab in page.elements("paper-tab") if text(tab) == "PARALLEL COORDINATES VIEW")
        browser.execute_script("arguments[0].click()", view)
        page.wait(lambda: sum(line.rect["width"] > 300 for line in page.elements(".foreground path")) == len(complete))


def test_a_study_with_other_settings_is_not_mixed(killed: Path, cli: RunCLI, training_images: Path) -> None:
    data = [f"--data.data_dir={training_images}", "--trainer.limit_train_batches=20", "--fresh=2"]
    same = args_of(killed.parent, data, "--trials=6")
    other = killed.parent / "other.yaml"
    other.write_text(SEARCH.replace("1e-2", "1e-3"))
    more = killed.parent / "more.yaml"
    more.write_text(SEARCH.replace("[0, 16]", "[0, 16, 32]"))
    for change, named in (
        ("--seeds=2", "--seeds: 1 and 2"),
        ("--data.val_size=600", "data.val_size: 500 and 600"),
        ("--data.normalize=false", "data.normalize: True and False"),
        (f"--search={other}", "range of model.lr: "),
        (f"--search={more}", "choices can't change. Go on with those of its start, or choose another --name."),
    ):
        outcome = cli(*same, change)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.startswith("error: it was started with other settings: ")
        assert named in outcome.err
        assert len(outcome.err.splitlines()) == 1
    outcome = cli(*same)  # unchanged: nothing is left to train
    assert outcome.code == 0
    assert outcome.out.startswith(f"{killed}: searching model.lr, ")
    assert "; 6 of 6 trials are finished.\n" in outcome.out
    assert not re.search(r"^(Trial \d+ \(|Fresh seed)", outcome.out, re.MULTILINE)


def test_a_search_goes_on_in_wider_ranges_and_ends_when_its_time_is_over(
    cli: RunCLI, letters: Path, tmp_path: Path
) -> None:
    args = args_of(tmp_path, other_data(letters), "--trainer.max_epochs=1", "--fresh=1")
    assert cli(*args, "--trials=2").code == 0
    (tmp_path / "search.yaml").write_text("model.lr: {log: [1e-4, 1]}\nmodel.width: {choice: [0, 16]}\n" + WIDE)
    outcome = cli(*args, "--trials=6")
    assert outcome.code == 0, outcome.err
    assert max(trial.params["data.max_shift"] for trial in study(tmp_path / "it").trials) > 2
    for jobs in ("--jobs=1", "--jobs=2"):
        outcome = cli(*args, "--trials=50", "--minutes=1e-9", jobs)
        assert outcome.code == 0, outcome.err
        assert len(study(tmp_path / "it").trials) == 6
        assert "Train the best: python -m src fit" in outcome.out
    (tmp_path / "search.yaml").write_text(SEARCH)
    assert "A range of numbers may become wider" in cli(*args, "--trials=6").err


def test_a_search_without_time_says_that_no_trial_ended(cli: RunCLI, letters: Path, tmp_path: Path) -> None:
    outcome = cli(*args_of(tmp_path, other_data(letters), "--minutes=1e-9"))
    assert (outcome.code, outcome.err) == (1, "error: No trial has a result. None has ended.\n")


class Troubled(Tiny):
    """Fails in one of several ways if told so."""

    def __init__(self, trouble: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trouble = trouble

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.trouble == "memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.trouble == "mistake":
            raise KeyError("a mistake in the network")
        if self.trouble == "disk":
            raise OSError(28, "No space left on device")
        return super().training_step(batch, batch_idx) * (float("nan") if self.trouble == "nan" else 1)


def troubled(cli: RunCLI, folder: Path, letters: Path, troubles: str, *args: str) -> Any:
    (folder / "search.yaml").write_text(f"model.trouble: {{choice: [{troubles}]}}")
    network = "--model=tests.tuning.test_search.Troubled"
    return cli(*args_of(folder, other_data(letters), network, "--trainer.max_epochs=1", "--fresh=1", *args))


def test_a_trial_that_fails_does_not_end_the_search_and_no_setting_is_trained_twice(
    cli: RunCLI, letters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_study = partial(optuna.create_study, sampler=RandomSampler(seed=0))  # each value comes up
    monkeypatch.setattr(optuna, "create_study", create_study)
    outcome = troubled(cli, tmp_path, letters, "null, nan, memory, mistake", "--trials=12", "--seeds=2")
    assert outcome.code == 0, outcome.err
    trials = study(tmp_path / "it").get_trials()
    assert len(trials) == 12
    reasons = {t.params["model.trouble"]: t.user_attrs["reason"] for t in trials if t.state == TrialState.FAIL}
    assert reasons["nan"].startswith("The loss is NaN or infinite: epoch 1, step 1,")
    assert reasons["memory"] == "out of memory"
    assert reasons["mistake"] == "KeyError: 'a mistake in the network'"
    assert "in training_step\n    raise KeyError" in outcome.err  # where it happened
    first, *again = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert again and {trial.value for trial in again} == {first.value}
    assert len(list(tmp_path.glob("it/trials/*/seed_1/validation"))) == 1
    folder = tmp_path / "it" / "trials" / f"trial_{first.number:03d}"
    accuracies = [last_accuracy(folder / f"seed_{seed}" / "validation") for seed in (0, 1)]
    assert first.value == pytest.approx(100 * (1 - np.mean(accuracies)))
    assert not list(tmp_path.rglob("*.ckpt"))


def last_accuracy(folder: Path) -> float:
    return EventAccumulator(str(folder)).Reload().Scalars("curves/accuracy")[-1].value


@pytest.mark.parametrize(("trouble", "message"), [("nan", "The last one: The loss is NaN"), ("disk", "No space left")])
def test_a_search_without_results_or_disk_ends_with_an_error(
    trouble: str, message: str, cli: RunCLI, letters: Path, tmp_path: Path
) -> None:
    outcome = troubled(cli, tmp_path, letters, trouble, "--trials=2")
    assert outcome.code == 1
    assert message in outcome.err.splitlines()[-1]
    assert len(study(tmp_path / "it").get_trials()) == (2 if trouble == "nan" else 1)


def test_stopped_by_a_signal_it_goes_on_with_the_same_command(letters: Path, tmp_path: Path) -> None:
    args = args_of(tmp_path, other_data(letters), "--trials=2", "--fresh=0", "--data.batch_size=1")
    process = Fork(tmp_path, *args)
    process.wait_until((tmp_path / "it" / "trials" / "trial_000" / "seed_0" / "config.yaml").exists)
    process.send_signal(signal.SIGTERM)
    outcome = process.wait()
    assert outcome.code == 128 + signal.SIGTERM
    assert outcome.err.endswith("\nFinished trials are kept. Run the same command again to continue.\n")
    let_the_grace_period_end(tmp_path / "it")
    assert "Trial 2 (2 of 2)" in Fork(tmp_path, *args).finish()
    first, again, _ = study(tmp_path / "it").get_trials()
    assert first.state == TrialState.FAIL
    assert again.params == first.params


def test_jobs_share_the_trials_and_the_fresh_seeds(letters: Path, tmp_path: Path) -> None:
    args = args_of(tmp_path, other_data(letters), "--trials=6", "--fresh=2", "--jobs=2")
    said = Fork(tmp_path, *args, function=command_line_with_forked_trainings).finish()
    assert len(finished(study(tmp_path / "it"))) in (6, 7)  # the other process may be in one more trial
    folders = [tmp_path.glob("it/trials/*/events.*"), tmp_path.glob("it/fresh/*/*/run_0/events.*")]
    for events in map(list, folders):  # their names end in the number of the process and of the file
        assert len({path.name.split(".")[-2] for path in events}) == 2
    assert len(list(tmp_path.glob("it/fresh/*/*/run_*"))) == 4
    assert len(re.findall(r"^With 2 fresh seeds, Trial \d makes", said, re.MULTILINE)) == 2


def test_a_trial_that_was_killed_in_a_journal_is_queued_as_the_page_says(
    cli: RunCLI, letters: Path, tmp_path: Path
) -> None:
    args = args_of(tmp_path, other_data(letters), "--fresh=0", f"--storage={tmp_path}/it.journal")
    assert cli(*args, "--trials=1").code == 0
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "it.journal")))
    stored = optuna.load_study(study_name="it", storage=storage)
    lost = stored.ask({"model.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)})
    page = (ROOT / "docs" / "tuning.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(example.replace("tuning/lenet5.journal", f"{tmp_path}/it.journal").replace("lenet5", "it"), {})
    assert cli(*args, "--trials=2").code == 0
    trials = stored.get_trials()
    assert [trial.state in ENDED for trial in trials] == [True, False, True]
    assert trials[2].params["model.lr"] == lost.params["model.lr"]
