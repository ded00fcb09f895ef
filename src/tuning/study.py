"""The study of a search: its trials in an Optuna storage on disk, which several processes may share."""

import json
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.pruners import MedianPruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from src.runs.folder import LOCK
from src.runs.recipe import differences
from src.system.errors import UserError
from src.system.files import locked
from src.tuning.ranges import is_wider

HEARTBEAT, GRACE = 10, 60  # seconds: a running trial shows that it lives; one that doesn't has been killed
MAX_RETRIES = 3  # of a trial that ends its process each time, for example for lack of memory
RANGE = "range of "  # a setting, in the facts of a study
LOCAL_WAIT = 100  # seconds that SQLite waits for another process


def open_study(folder: Path, storage: str | None, facts: dict[str, Any]) -> Study:
    """Open the study of a search, or make it. Trials of different settings must not be mixed.

    Args:
        folder: Of the search. Its name is that of the study.
        storage: A database URL or a journal file; by default an SQLite file in `folder`.
        facts: What all trials have in common, as plain data.

    Raises:
        UserError: The storage cannot be used, the study was started with other facts, or the folder has other files.
    """
    trials = folder / "trials"
    if folder.is_dir() and any(folder.iterdir()) and not trials.is_dir():
        raise UserError(f"{folder} is not the folder of a search. Choose another --name.")
    trials.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # `Search` prints a line for each trial
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # heartbeats
    url = storage or f"sqlite:///{folder / 'study.db'}"
    with locked(folder / LOCK):  # several commands may start at the same time
        try:
            opened = _open_storage(url)
            study = optuna.create_study(
                storage=opened, study_name=folder.name, pruner=MedianPruner(), load_if_exists=True
            )
        except (SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
            raise UserError(f"The storage {url} can't be used: {' '.join(str(error).split())[:300]}") from None
        _compare(study, facts)
    return study


def _compare(study: Study, facts: dict[str, Any]) -> None:
    """Accept wider ranges of numbers. Raise a `UserError` if anything else differs from the start of the search."""
    known = study.user_attrs.get("facts", facts)
    ranges = [name for name in known if name.startswith(RANGE) and name in facts]
    wider = {name: facts[name] for name in ranges if is_wider(facts[name], known[name])}
    if changed := differences(known | wider, facts):
        advice = "Go on with those of its start, or choose another --name."
        if any(name in change for name in ranges for change in changed):
            advice = f"A range of numbers may become wider, in the same form; choices can't change. {advice}"
        raise UserError(f"{study.study_name} was started with other settings: {', '.join(changed)}. {advice}")
    study.set_user_attr("facts", facts)


def _open_storage(url: str) -> BaseStorage:
    if "://" not in url:
        Path(url).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(url))
    return RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": LOCAL_WAIT}} if url.startswith("sqlite") else {},
        heartbeat_interval=HEARTBEAT,
        grace_period=GRACE,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES),
    )


def finished(study: Study) -> list[FrozenTrial]:
    """The trials that are complete, pruned, or failed with a reason. Not those whose process was killed."""
    trials = study.get_trials(deepcopy=False)
    return [t for t in trials if t.state.is_finished() and (t.state != TrialState.FAIL or "reason" in t.user_attrs)]


def ranked(study: Study) -> list[FrozenTrial]:
    """The complete trials, the best first; of those with the same settings, the first one."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    by_settings: dict[str, FrozenTrial] = {}
    for trial in sorted(complete, key=lambda trial: (trial.value, trial.number)):
        by_settings.setdefault(json.dumps(trial.params, sort_keys=True), trial)
    return list(by_settings.values())
