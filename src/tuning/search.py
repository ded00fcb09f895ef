"""The trials of a search: what each of them trains, and what it leaves behind."""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from optuna import Trial
from optuna.trial import FrozenTrial, TrialState

from src.runs.recipe import recipe_of
from src.system.errors import UserError
from src.system.files import locked, write_whole
from src.tuning import results
from src.tuning.ranges import Ranges, as_words
from src.tuning.study import LOCK, complete, finished, number_of, open_storage, open_study, running, work
from src.tuning.trial import Pruning, train_held_out


@dataclass
class Search:
    """A search for settings.

    Args:
        parser: The parser of ``fit``.
        base: The settings that are not searched.
        configs: The configs on the command line; best.yaml is an overlay for them.
        ranges: The settings that are searched.
        n_trials: The number of trials.
        n_seeds: The number of runs of each trial, with the seeds 0, 1, …
        prune: Whether bad trials are ended early.
        folder: Of the search, the same for all its processes.
        storage: A database URL or a journal file; by default an SQLite file in `folder`.
    """

    parser: LightningArgumentParser
    base: Namespace
    configs: list[str]
    ranges: Ranges
    n_trials: int
    n_seeds: int
    prune: bool
    folder: Path
    storage: str | None

    def open(self) -> None:
        """Open the study, or make it.

        Raises:
            UserError: It was started with other settings or in another folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = recipe_of(self.base, self.parser) | {"--seeds": self.n_seeds}
        facts |= {f"range of {name}": str(values) for name, values in self.ranges.items()}
        with locked(self.folder / LOCK):
            self.database = open_storage(self.storage, self.folder)
            self.study = open_study(self.database, self.folder.name, facts)
            identity = self.folder / ".identity"  # a random text, by which processes notice another folder
            if not identity.exists():
                results.describe_search(self.folder, self.ranges)
                identity.write_text(secrets.token_hex(8))
            if self.study.user_attrs.get("folder", identity.read_text()) != identity.read_text():
                raise UserError(
                    f"The study {self.folder.name} in {self.storage} has its trials in another folder. "
                    "All processes of a study share one folder (--output and --name)."
                )
            self.study.set_user_attr("folder", identity.read_text())

    def run(self) -> None:
        """Take part in the trials until all are finished."""
        work(self.study, self.trials, self.n_trials, self.ranges, self._judge, self._keep)
        if not complete(self.study):
            reasons = [trial.user_attrs.get("reason", "its process was killed") for trial in finished(self.study)]
            raise UserError(f"No trial has a result. The last one: {reasons[-1]}")

    @property
    def trials(self) -> Path:
        """The folder of the trials."""
        return self.folder / "trials"

    def config_of(self, values: dict[str, Any]) -> Namespace:
        """The settings of a trial, as parsed for ``fit``."""
        return self.parser.parse_args(as_words(values), namespace=self.base.clone())

    def write_best(self, trial: FrozenTrial) -> None:
        """Write best.yaml: the settings of a trial that the configs do not have."""
        base = self.parser.parse_args([f"--config={path}" for path in self.configs])
        changes = results.overlay(recipe_of(self.config_of(trial.params), self.parser), recipe_of(base, self.parser))
        comment = f"# Trial {number_of(trial)} of {self.folder}: {describe_errors(trial)}.\n# Use: {self.fit_command}\n"
        text = yaml.safe_dump(Namespace(changes).as_dict(), sort_keys=False)
        write_whole(self.folder / "best.yaml", f"{comment}{text}".encode())

    @property
    def fit_command(self) -> str:
        """The command line that trains with best.yaml."""
        configs = [*self.configs, self.folder / "best.yaml"]
        return " ".join(["python -m src fit", *(f"--config {path}" for path in configs)])

    def _judge(self, trial: Trial, folder: Path) -> float:
        config = self.config_of(trial.params)
        errors: list[int] = trial.user_attrs.get("errors", [])  # of the runs before it was stopped
        for seed in range(len(errors), self.n_seeds):
            # Trainings of different lengths cannot be compared at the same epoch.
            pruning = [Pruning(trial, errors)] if self.prune and "trainer.max_epochs" not in self.ranges else []
            found, n_images = train_held_out(self.parser, config, seed, folder / f"seed_{seed}", pruning)
            errors = [*errors, found]
            trial.set_user_attr("images", n_images)  # before the errors, which say that this run is finished
            trial.set_user_attr("errors", errors)
        return sum(errors) / len(errors)

    def tidy(self) -> None:
        """Write best.yaml and TensorBoard's table, and remove all checkpoints but the best."""
        if best := complete(self.study):
            self.write_best(best[0])
        results.keep_best_checkpoint(self.study, self.trials)
        results.show_trials(self.study, self.trials)

    def _keep(self, trial: FrozenTrial) -> None:
        self.tidy()
        best = complete(self.study)
        reason = trial.user_attrs.get("reason")
        ended = {TrialState.PRUNED: f"pruned {reason}", TrialState.FAIL: f"failed: {reason}"}.get(trial.state)
        n_finished = len(finished(self.study))
        line = f"Trial {number_of(trial)} ({n_finished} of {self.n_trials}): {ended or describe_errors(trial)}"
        if best:
            line += f"; best: {best[0].value:g} errors, trial {number_of(best[0])}"
        if left := self.n_trials - n_finished:
            line += f". {describe_time_left(self.study, left)}"
        print(line, flush=True)


def describe_errors(trial: FrozenTrial) -> str:
    """The result of a trial in words."""
    runs = len(trial.user_attrs["errors"])
    mean = f" (mean of {runs} seeds)" if runs > 1 else ""
    return f"{trial.value:g} errors in {trial.user_attrs['images']:,} held-out images{mean}"


def describe_time_left(study: Any, n_left: int) -> str:
    """The time left, from the mean duration of the trials so far and the number of processes."""
    durations = [trial.duration.total_seconds() for trial in finished(study) if trial.duration is not None]
    n_processes = 1 + len(running(study))  # this one has just finished a trial
    seconds = sum(durations) / max(1, len(durations)) * n_left / min(n_processes, n_left)
    return f"About {max(1, round(seconds / 60))} min left"
