"""The study: trials in an Optuna storage on disk, which several processes work on together.

Each running trial holds the lock of its folder. So a trial without a lock was killed or stopped, and is tried again.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from optuna import Study, Trial, TrialPruned
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from src.runs.folder import Run
from src.runs.recipe import differences
from src.system.errors import UserError, reason
from src.system.files import locked
from src.tuning.ranges import Ranges

LOCK = ".lock"
MAX_RETRIES = 10  # then a trial that ends its process each time, for example for lack of memory, counts as failed
LOCAL_WAIT = 100  # seconds that SQLite waits for another process

Judge = Callable[[Trial, Path], float]  # trains the networks of a trial in its folder, and returns the mean errors


def silence_optuna() -> None:
    """Hide Optuna's own lines on each trial, and its warnings that a part of it may change."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="The reported value is ignored")  # of an epoch that is trained again


def open_storage(given: str | None, folder: Path) -> BaseStorage:
    """Open a database URL, a journal file, or by default an SQLite file in `folder`."""
    url = given or f"sqlite:///{folder / 'study.db'}"
    try:
        if "://" not in url:
            Path(url).parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(url))
        wait = {"connect_args": {"timeout": LOCAL_WAIT}} if url.startswith("sqlite") else {}
        return RDBStorage(url, engine_kwargs=wait)
    except (SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
        raise UserError(f"The storage {url} can't be used: {' '.join(str(error).split())[:300]}") from None


def open_study(storage: BaseStorage, name: str, facts: dict[str, Any]) -> Study:
    """Open a study, or make it. Trials of different settings must not be mixed.

    Args:
        storage: Where it is.
        name: Its name.
        facts: What all its trials have in common, as plain data.

    Raises:
        UserError: It was started with other facts.
    """
    study = optuna.create_study(storage=storage, study_name=name, pruner=MedianPruner(), load_if_exists=True)
    known = study.user_attrs.get("facts")
    if known is None:
        study.set_user_attr("facts", facts)
    elif changed := differences(known, facts):
        raise UserError(
            f"{name} was started with other settings: {', '.join(changed)}. "
            "Go on with those of its start, or choose another --name."
        )
    return study


def number_of(trial: FrozenTrial | Trial) -> int:
    """The number of a trial. One that is tried again keeps it; for Optuna it is a new trial."""
    return int(trial.user_attrs.get("number", -1))


def folder_of(trial: FrozenTrial | Trial, folder: Path) -> Path:
    """The folder of a trial, which one that is tried again continues."""
    return folder / trial.user_attrs.get("folder", f"trial_{number_of(trial):03d}")


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that have ended by themselves: complete, pruned, or failed. Not those that were killed."""
    trials = study.get_trials(deepcopy=False)
    again = _tried_again(trials)
    return [trial for trial in trials if trial.state.is_finished() and trial.number not in again]


def _tried_again(trials: list[FrozenTrial]) -> set[int]:
    return {number for trial in trials for number in RetryHeartbeatStaleTrialCallback.retry_history(trial)}


def complete(study: Study) -> list[FrozenTrial]:
    """The trials with a result, the best first."""
    found = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return sorted(found, key=lambda trial: (trial.value, trial.number))


def running(study: Study) -> list[FrozenTrial]:
    """The trials that a process works on, or worked on when it was killed."""
    return study.get_trials(states=(TrialState.RUNNING,))  # copies: Optuna's retry changes what it is given


def work(
    study: Study, folder: Path, total: int, ranges: Ranges, judge: Judge, after: Callable[[FrozenTrial], None]
) -> None:
    """Take trials until `total` are finished, in turn with all other processes that work on this study.

    Args:
        study: Where the trials are.
        folder: Of their folders, shared by all processes.
        total: The number of trials, with those of earlier and of other processes.
        ranges: What a trial chooses from.
        judge: Called for each trial.
        after: Called after each trial of this process, while no other process changes the study.
    """
    folder.mkdir(parents=True, exist_ok=True)
    while len(finished(study)) < total:
        with _taken(study, folder, total, ranges) as trial:
            if trial is None:  # other processes work on the last trials; one of these may be killed
                time.sleep(0.5)
                continue
            state, value = _outcome(judge, trial, folder_of(trial, folder))
            with locked(folder / LOCK):
                after(study.tell(trial, value, state))


@contextmanager
def _taken(study: Study, folder: Path, total: int, ranges: Ranges) -> Iterator[Trial | None]:
    """Take the next trial and hold its lock. None if all that are left have been taken."""
    with ExitStack() as held:
        with locked(folder / LOCK):
            _try_killed_again(study, folder)
            taken = len(finished(study)) + len(running(study))
            trial = None
            if taken < total:
                number = 1 + max(map(number_of, study.get_trials(deepcopy=False)), default=-1)
                # With a seed for each trial, one process finds the same trials again, stopped or not.
                study.sampler = TPESampler(seed=number)
                trial = study.ask(ranges)
                if "number" not in trial.user_attrs:
                    trial.set_user_attr("number", number)
                own = Run(folder_of(trial, folder))
                own.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(own.locked())
        yield trial


def _try_killed_again(study: Study, folder: Path) -> None:
    """Queue the trials again that are marked as running, but have no process."""
    again = RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES, inherit_intermediate_values=True)
    queued = _tried_again(study.get_trials(deepcopy=False))
    for trial in running(study):
        own = Run(folder_of(trial, folder))
        if own.folder.is_dir() and own.is_busy:
            continue
        if trial.number not in queued:  # else this process was killed between the next two lines
            again(study, trial)
        study.tell(trial.number, state=TrialState.FAIL)


def _outcome(judge: Judge, trial: Trial, folder: Path) -> tuple[TrialState, float | None]:
    """Run a trial. A failed one (NaN loss, out of memory) doesn't end the search."""
    try:
        return TrialState.COMPLETE, judge(trial, folder)
    except TrialPruned as pruned:
        trial.set_user_attr("reason", str(pruned))
        return TrialState.PRUNED, None
    except (OSError, SQLAlchemyError, optuna.exceptions.StorageInternalError):
        raise  # the next trials would fail too
    except Exception as error:  # a network of the user can raise any
        if isinstance(error, UserError) and isinstance(error.__cause__, OSError):  # a checkpoint cannot be written
            raise
        text = "out of memory" if is_oom_error(error) or isinstance(error, MemoryError) else reason(error)
        trial.set_user_attr("reason", text)
    garbage_collection_cuda()  # after the exception has released its tensors
    return TrialState.FAIL, None
