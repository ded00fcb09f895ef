"""Trials without trainings: which are taken, tried again and counted."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna import Study, Trial
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from src.runs.checkpoints import CheckedCheckpointIO
from src.system.errors import UserError
from src.tuning import study as module
from src.tuning.ranges import Ranges
from src.tuning.search import Search, describe_errors
from src.tuning.study import MAX_RETRIES, finished, number_of, open_storage, open_study, silence_optuna, work

RANGES: Ranges = {"x": FloatDistribution(-1, 1), "y": FloatDistribution(-1, 1)}
Judge = Callable[[Trial, Path], float]


def judge(trial: Trial, folder: Path) -> float:
    return trial.params["x"] ** 2 + trial.params["y"] ** 2


class Killed(BaseException):
    """As `kill -9`: nothing is told to the study, and the lock of the trial is released."""


def search(folder: Path, total: int, judge: Judge, storage: str | None = None) -> Study:
    silence_optuna()
    study = open_study(open_storage(storage, folder), "it", {})
    work(study, folder, total, RANGES, judge, lambda trial: None)
    return study


def params(study: Study) -> list[dict[str, Any]]:
    """The settings of the finished trials, in the order of their numbers."""
    return [trial.params for trial in sorted(finished(study), key=number_of)]


def test_a_killed_search_finds_the_same_trials(tmp_path: Path) -> None:
    """Fifteen: the sampler learns after ten. The whole search is in SQLite, the other one in a journal."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = search(tmp_path / "whole", 15, judge)
    kills = [0, 0, 4, 12, 14]  # number of the trial

    def killed_judge(trial: Trial, folder: Path) -> float:
        if kills and folder.name == f"trial_{kills[0]:03d}":
            kills.pop(0)
            raise Killed
        return judge(trial, folder)

    path = str(tmp_path / "journal.log")
    for _ in range(len(kills)):
        with pytest.raises(Killed):
            search(tmp_path / "cut", 15, killed_judge, path)
    cut = search(tmp_path / "cut", 15, killed_judge, path)
    assert len(cut.get_trials()) == 20
    assert len(finished(cut)) == 15
    assert params(cut) == params(whole)
    assert len(params(search(tmp_path / "cut", 17, judge, path))) == 17  # --trials is a total


@pytest.mark.parametrize("storage", [None, "journal.log"])
def test_a_trial_that_kills_each_process_has_failed_in_the_end(
    storage: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_RETRIES > 5
    path = storage and str(tmp_path / storage)
    monkeypatch.setattr(module, "MAX_RETRIES", 2)

    def deadly(trial: Trial, folder: Path) -> float:
        if folder.name == "trial_001":
            raise Killed
        return judge(trial, folder)

    for _ in range(3):
        with pytest.raises(Killed):
            search(tmp_path, 3, deadly, path)
    study = search(tmp_path, 3, deadly, path)
    assert sorted(trial.state.name for trial in finished(study)) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert len(study.get_trials()) == 5  # with the two that were tried again


@pytest.mark.parametrize("killed_at", [1, 2])
def test_a_kill_while_the_result_is_stored_does_not_lose_it(
    killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, n_stored = Trial.set_user_attr, 0

    def store(trial: Trial, name: str, value: Any) -> None:
        nonlocal n_stored
        keep(trial, name, value)
        n_stored += name != "number"
        if n_stored == killed_at:
            raise Killed

    monkeypatch.setattr(Trial, "set_user_attr", store)
    monkeypatch.setattr("src.tuning.search.train_held_out", lambda *args: (7, 100))
    of_search = SimpleNamespace(parser=None, config_of=lambda params: None, ranges=RANGES, n_seeds=1, prune=False)
    judge: Any = partial(Search._judge, of_search)  # type: ignore[arg-type]
    with pytest.raises(Killed):
        search(tmp_path, 1, judge)
    [trial] = finished(search(tmp_path, 1, judge))
    assert describe_errors(trial) == "7 errors in 100 held-out images"


@pytest.mark.parametrize(
    ("prune", "ranges", "pruned"),
    [(True, {}, 1), (False, {}, 0), (True, {"trainer.max_epochs": IntDistribution(1, 3)}, 0)],
)
def test_a_trial_is_the_mean_of_a_run_for_each_seed(
    prune: bool, ranges: Ranges, pruned: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, str, int]] = []

    def train(parser: None, config: None, seed: int, folder: Path, callbacks: list[Any]) -> tuple[int, int]:
        calls.append((seed, folder.name, len(callbacks)))
        return 10 * seed, 500

    monkeypatch.setattr("src.tuning.search.train_held_out", train)
    of_search: Any = SimpleNamespace(parser=None, config_of=lambda params: None, ranges=ranges, n_seeds=3, prune=prune)
    trial = optuna.create_study().ask()
    trial.set_user_attr("errors", [7])  # of seed 0, before it was stopped
    assert Search._judge(of_search, trial, tmp_path) == pytest.approx(37 / 3)
    assert calls == [(1, "seed_1", pruned), (2, "seed_2", pruned)]


def test_a_checkpoint_that_cannot_be_written_ends_the_search(tmp_path: Path) -> None:
    def full(trial: Trial, folder: Path) -> float:
        (folder / "checkpoints").touch()  # a file in place of the folder, instead of a full disk
        CheckedCheckpointIO().save_checkpoint({}, folder / "checkpoints" / "last.ckpt")
        return 0.0

    with pytest.raises(UserError, match="Cannot write a checkpoint"):
        search(tmp_path, 2, full)


def test_a_trial_that_another_process_runs_is_not_taken(tmp_path: Path) -> None:
    seen: list[str] = []
    states: list[TrialState] = []

    def busy(trial: Trial, folder: Path) -> float:
        if not seen:  # what a second process does, while the first trial of the first one runs
            seen.append(folder.name)
            other = open_study(open_storage(None, tmp_path), "it", {})
            module._try_killed_again(other, tmp_path)
            states.extend(found.state for found in other.get_trials())
        return judge(trial, folder)

    assert len(search(tmp_path, 2, busy).get_trials()) == 2
    assert states == [TrialState.RUNNING]
