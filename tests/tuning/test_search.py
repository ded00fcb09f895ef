"""Searches of real processes: killed, stopped, several at once, without the test images."""

import json
import re
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from filelock import Timeout
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import Tensor

from src.models.classifier import Batch
from src.runs.network import TrainedNetwork
from src.system.files import locked
from src.tuning.report import report
from tests.conftest import LETTERS, RunCLI
from tests.forks import Fork, command_line_with_forked_trainings
from tests.tensorboard.conftest import serve
from tests.tensorboard.test_tensorboard import Page, text
from tests.tiny import Tiny
from tests.tuning.conftest import SEARCH, SETTINGS, TINY, study, with_result

SHORT = ("--trainer.limit_train_batches=20", "--fresh=2")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@pytest.fixture(scope="module")
def killed(training_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of five trials, killed in one of them and once among the fresh seeds, without the test images."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "search.yaml").write_text(SEARCH)
    words = [*TINY, *SHORT, f"--search={folder}/search.yaml", "--trials=5", f"--output={folder}", "--name=it"]
    words.append(f"--data.data_dir={training_images}")
    for victim in ("trials/trial_001/seed_0", "confirmation/*/*/*"):
        process = Fork(folder, *words)
        process.wait_until(partial(any_file, folder / "it", f"{victim}/config.yaml"))
        process.kill()
        assert process.wait().code == -signal.SIGKILL
    (folder / "last.log").write_text(Fork(folder, *words).finish())
    return folder / "it"


def other_data(letters: Path) -> list[str]:
    """A small set of images, of which 100 are held out."""
    return [f"--data.data_dir={letters}", f"--data.classes={LETTERS}", "--data.val_size=100"]


def any_file(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


def test_a_killed_trial_is_tried_again_and_the_search_ends_with_all_trials(killed: Path) -> None:
    trials = study(killed).get_trials()
    assert sum(trial.state in ENDED for trial in trials) == 5
    assert {trial.state for trial in trials} <= {*ENDED, TrialState.FAIL}
    lost = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert len(lost) == 1
    for trial in lost:  # the same settings once more
        again = [other for other in trials if other.params == trial.params and other.state in ENDED]
        assert len(again) == 1
    said = (killed.parent / "last.log").read_text()
    fresh = re.findall(r"^Fresh seed (\d) of (Trial \d) \((\d) of 4\): \d+ errors", said, re.MULTILINE)
    assert fresh[-1][2] == "4"
    assert len({run[:2] for run in fresh}) == len(fresh)


def test_the_test_images_are_never_read(killed: Path, training_images: Path) -> None:
    """They are not there, and were not downloaded either."""
    assert (killed / "results.json").exists()
    assert [path.name for path in training_images.rglob("t10k*")] == []


def test_the_result_is_that_of_fit_on_the_held_out_images(
    killed: Path, cli: RunCLI, mnist: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    best = study(killed).best_trial
    config = yaml.safe_load((killed / "best.yaml").read_text())
    assert config["data"] == {"max_shift": best.params["data.max_shift"]}
    limits = ("--trainer.limit_train_batches=20", "--trainer.limit_test_batches=1", "--data.val_size=500")
    run = cli("fit", f"--config={killed}/best.yaml", "--seed_everything=0", *limits).run
    results = json.loads((run / "results.json").read_text())
    assert results["epochs"] == 2
    assert results["curves"]["accuracy"]["validation"]["2"] == pytest.approx(1 - best.value / 500)  # type: ignore[operator]


def test_only_the_best_trial_keeps_its_checkpoints(killed: Path) -> None:
    best = study(killed).best_trial
    number = best.user_attrs["number"]
    kept = {path.parents[2].name for path in killed.rglob("*.ckpt")}
    assert kept == {f"trial_{number:03d}"}
    network = TrainedNetwork(next(killed.rglob("last.ckpt"))).network  # the checkpoint names its network
    assert isinstance(network, Tiny) and network.lr == best.params["model.lr"]


def test_the_end_tells_the_table_and_how_sure_it_is(killed: Path) -> None:
    said = (killed.parent / "last.log").read_text()
    trials = sorted(with_result(killed, TrialState.COMPLETE), key=lambda trial: (trial.value, trial.number))
    rows = re.findall(r"^ *(\d+) +(\d+\.\d) +\S+ +(\d+) +(\d)$", said, re.MULTILINE)
    assert [(int(row[0]), float(row[1])) for row in rows] == [(t.user_attrs["number"], t.value) for t in trials]
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
        names = [f"trial_{trial.user_attrs['number']}" for trial in with_result(killed, *ENDED)]
        page.wait(lambda: page.shows(*names, *SETTINGS, "held-out errors"))
        shown = {float(word) for word in page.words() if re.fullmatch(r"\d+\.\d+", word)}
        assert {trial.value for trial in complete} <= shown
        view = next(tab for tab in page.elements("paper-tab") if text(tab) == "PARALLEL COORDINATES VIEW")
        browser.execute_script("arguments[0].click()", view)
        page.wait(lambda: sum(line.rect["width"] > 300 for line in page.elements(".foreground path")) == len(complete))


def same_words(killed: Path, training_images: Path) -> list[str]:
    words = [*TINY, *SHORT, f"--search={killed.parent}/search.yaml", "--trials=5", f"--output={killed.parent}"]
    return [*words, "--name=it", f"--data.data_dir={training_images}"]


def test_a_process_that_ends_last_does_what_a_killed_one_left_and_no_other_reports_meanwhile(
    killed: Path, cli: RunCLI, training_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, *others = sorted(with_result(killed, *ENDED), key=lambda trial: (trial.value, trial.number))
    folder = killed / "trials" / f"trial_{others[-1].user_attrs['number']:03d}"
    (folder / "seed_0" / "checkpoints").mkdir()
    (killed / "best.yaml").unlink()
    [events] = folder.glob("events.*")
    events.unlink()

    def describe(*args: Any) -> str:
        with pytest.raises(Timeout), locked(killed / ".lock", timeout=0):
            pass
        return report(*args)

    monkeypatch.setattr("src.tuning.tune.report", describe)
    outcome = cli(*same_words(killed, training_images))
    assert outcome.code == 0, outcome.err
    assert len(list(folder.glob("events.*"))) == 1
    assert not list(folder.rglob("checkpoints"))
    assert f"Trial {best.user_attrs['number']} of" in (killed / "best.yaml").read_text()


def test_a_study_with_other_settings_is_not_mixed(killed: Path, cli: RunCLI, training_images: Path) -> None:
    same = same_words(killed, training_images)
    other = killed.parent / "other.yaml"
    other.write_text(SEARCH.replace("1e-2", "1e-1"))
    for change, named in (
        ("--seeds=2", "--seeds: 1 and 2"),
        ("--data.val_size=600", "data.val_size: 500 and 600"),
        ("--data.normalize=false", "data.normalize: True and False"),
        (f"--search={other}", "range of model.lr: "),
    ):
        outcome = cli(*same, change)
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.startswith("error: it was started with other settings: ")
        assert named in outcome.err
        assert len(outcome.err.splitlines()) == 1
    moved = killed.rename(killed.parent / "away")
    storage = f"--storage=sqlite:///{moved / 'study.db'}"
    try:
        outcome = cli(*same, storage)
    finally:
        for path in (killed / ".lock", killed / ".identity"):
            path.unlink(missing_ok=True)
        for path in killed.glob("events.*"):
            path.unlink()
        killed.rmdir()
        moved.rename(killed)
    assert outcome.code == 1
    assert "has its trials in another folder." in outcome.err
    outcome = cli(*same)  # unchanged: nothing is left to train
    assert outcome.code == 0
    assert outcome.out.startswith(f"{killed}: searching model.lr, ")
    assert "; 5 of 5 trials are finished.\n" in outcome.out
    assert not re.search(r"^(Trial \d+ \(|Fresh seed)", outcome.out, re.MULTILINE)


class Troubled(Tiny):
    """Fails in one of two ways if told so."""

    def __init__(self, trouble: str = "none", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trouble = trouble

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.trouble == "memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().training_step(batch, batch_idx) * (float("nan") if self.trouble == "nan" else 1)


def test_a_trial_that_diverges_or_needs_too_much_memory_has_failed_and_the_search_goes_on(
    cli: RunCLI, letters: Path, tmp_path: Path
) -> None:
    (tmp_path / "search.yaml").write_text("model.trouble: {choice: [none, nan, memory]}")
    words = ["tune", "--model=tests.tuning.test_search.Troubled", "--trainer.max_epochs=1", "--trials=8", "--fresh=2"]
    words += [f"--search={tmp_path}/search.yaml", f"--output={tmp_path}/tuning"]
    outcome = cli(*words, *other_data(letters))
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "tuning" / "troubled"
    reasons = {t.params["model.trouble"]: t.user_attrs["reason"] for t in with_result(folder, TrialState.FAIL)}
    assert reasons["nan"].startswith("The loss is NaN or infinite: epoch 1, step 1,")
    assert reasons["memory"] == "out of memory"
    assert {t.params["model.trouble"] for t in with_result(folder, TrialState.COMPLETE)} == {"none"}
    assert re.search(r"\(8 of 8\)", outcome.out)
    (tmp_path / "search.yaml").write_text("model.trouble: {choice: [nan]}")
    outcome = cli(*words, *other_data(letters), "--trials=2", "--name=none")
    assert outcome.code == 1
    assert "\nerror: No trial has a result. The last one: The loss is NaN or infinite" in f"\n{outcome.err}"


def test_stopped_by_a_signal_it_goes_on_inside_the_trial(letters: Path, tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text(SEARCH)
    words = [*TINY, f"--search={tmp_path}/search.yaml", "--trials=2", f"--output={tmp_path}", "--fresh=0"]
    words += [*other_data(letters), "--data.batch_size=1", "--save_every_n_steps=50"]
    process = Fork(tmp_path, *words)
    saved = tmp_path / "tiny" / "trials" / "trial_000" / "seed_0" / "checkpoints" / "last.ckpt"
    process.wait_until(saved.exists)
    process.send_signal(signal.SIGTERM)
    outcome = process.wait()
    assert outcome.code == 128 + signal.SIGTERM
    assert outcome.err.endswith("\nFinished trials are kept. Run the same command again to continue.\n")
    step = torch.load(saved, weights_only=True)["global_step"]
    assert "Trial 1 (2 of 2)" in Fork(tmp_path, *words).finish()
    events = [event for path in saved.parents[1].glob("events.*") for event in EventFileLoader(str(path)).Load()]
    assert [event.step for event in events if event.HasField("session_log")] == [step]  # it went on from there


def test_jobs_share_the_trials(letters: Path, tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text(SEARCH)
    words = [*TINY, "--fresh=1", f"--search={tmp_path}/search.yaml", "--trials=5", f"--output={tmp_path}", "--jobs=2"]
    words += other_data(letters)
    said = Fork(tmp_path, *words, function=command_line_with_forked_trainings).finish()
    ended = re.findall(r"^process (\d): Trial (\d) \((\d) of 5\)", said, re.MULTILINE)
    assert {process for process, _, _ in ended} == {"1", "2"}
    assert sorted(number for _, number, _ in ended) == list("01234")
    assert len(re.findall(r"^process \d: Fresh seed", said, re.MULTILINE)) == 2
    assert len(study(tmp_path / "tiny").get_trials()) == 5
