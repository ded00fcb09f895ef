"""The trainings of a search: trials, and runs with fresh seeds."""

import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path

from filelock import Timeout
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from optuna import Study, Trial
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from src.runs.folder import LOCK
from src.runs.recipe import recipe_of
from src.system.errors import UserError
from src.system.files import locked, write_json
from src.tuning.ranges import Ranges, as_args, choose
from src.tuning.study import finished, ranked
from src.tuning.trial import Pruning, describe_failure, train_held_out


@dataclass(frozen=True)
class Search:
    """A search for settings. Other processes may work on its study and in its folder too."""

    parser: LightningArgumentParser  # of `fit`
    settings: Namespace  # of `fit`; the trials change some of them
    ranges: Ranges
    n_trials: int  # finished ones, with those of earlier and of other processes
    n_seeds: int  # a trial trains with the seeds 0, 1, …
    prune: bool
    folder: Path
    study: Study
    ends_at: float  # by time.monotonic(): no trial starts later

    def train_trials(self) -> None:
        """Train trials until enough are finished or the time is over."""
        if not self.is_finished:
            # gc: an exception keeps the tensors of a failed trial.
            seconds = max(0, self.ends_at - time.monotonic())
            self.study.optimize(self._train, callbacks=[self._after], gc_after_trial=True, timeout=seconds)
        if not ranked(self.study):
            reasons = [trial.user_attrs.get("reason", "It was pruned.") for trial in finished(self.study)]
            last = f"The last one: {reasons[-1]}" if reasons else "None has ended."
            raise UserError(f"No trial has a result. {last}")

    @property
    def is_finished(self) -> bool:
        """Whether enough trials are finished."""
        return len(finished(self.study)) >= self.n_trials

    def settings_of(self, trial: FrozenTrial | Trial) -> Namespace:
        """The settings of a trial, as parsed for ``fit``."""
        return self.parser.parse_args(as_args(trial.params), namespace=self.settings.clone())

    def _folder_of(self, trial: FrozenTrial | Trial) -> Path:
        return self.folder / "trials" / f"trial_{trial.number:03d}"

    def _train(self, trial: Trial) -> float:
        """The mean errors of a trial over its seeds. NaN, which Optuna counts as failed, if a training fails."""
        for name, written in self.ranges.items():
            choose(trial, name, written)
        for earlier in ranked(self.study):
            if earlier.params == trial.params:  # training it again would give the same
                assert earlier.value is not None
                return earlier.value
        errors: list[int] = []
        try:
            for seed in range(self.n_seeds):
                # Trainings of different lengths cannot be compared at the same epoch.
                callbacks = [Pruning(trial, errors)] if self.prune and "trainer.max_epochs" not in self.ranges else []
                folder = self._folder_of(trial) / f"seed_{seed}"
                new, n_images = train_held_out(self.parser, self.settings_of(trial), seed, folder, callbacks)
                errors = [*errors, new]
        except Exception as error:  # a network of the user can raise any
            trial.set_user_attr("reason", describe_failure(error))
            return math.nan
        trial.set_user_attr("images", n_images)
        return sum(errors) / len(errors)

    def _after(self, study: Study, trial: FrozenTrial) -> None:
        """Show a trial of this process in TensorBoard's table, and print its result."""
        is_complete = trial.state == TrialState.COMPLETE
        shown = {  # TensorBoard allows one type for each setting
            name: str(value) if isinstance(trial.distributions[name], CategoricalDistribution) else value
            for name, value in trial.params.items()
        }
        with SummaryWriter(str(self._folder_of(trial))) as writer:
            for part in hparams(shown, {"held_out_errors": 0}):  # with the names of the columns
                writer.file_writer.add_summary(part)
            if is_complete:
                writer.add_scalar("held_out_errors", trial.value, 0)
        n_finished, best = len(finished(study)), ranked(study)[:1]
        if n_finished >= self.n_trials:
            study.stop()
        outcome = f"failed: {trial.user_attrs.get('reason')}"
        if trial.value is not None:
            outcome = f"{'' if is_complete else 'pruned with '}{trial.value:g} errors"
        of_best = f"; best: {best[0].value:g} errors, trial {best[0].number}" if best else ""
        print(f"Trial {trial.number} ({n_finished} of {self.n_trials}): {outcome}{of_best}", flush=True)

    def train_fresh(self, recipes: dict[str, Namespace], n_seeds: int) -> dict[str, list[int]]:
        """Train recipes with seeds that the search did not use, as the result of the best trial is partly chance.

        Args:
            recipes: The settings of each recipe, by its name.
            n_seeds: The number of seeds.

        Returns:
            The errors of each recipe, one for each run that didn't fail.
        """
        seeds = range(self.n_seeds, self.n_seeds + n_seeds)
        results: dict[tuple[str, int], int | None] = {}
        for wait in (0, -1):  # first the runs that no other process trains; then those of others, which may be killed
            for seed, name in product(seeds, recipes):
                with suppress(Timeout):
                    results[name, seed] = self._train_with(seed, name, recipes[name], wait)
        by_name = {name: [results[name, seed] for seed in seeds] for name in recipes}
        return {name: [errors for errors in values if errors is not None] for name, values in by_name.items()}

    def _train_with(self, seed: int, name: str, settings: Namespace, wait: float) -> int | None:
        """The errors of a recipe with a seed, None if its training failed. A file keeps them for other processes."""
        digest = sha256(json.dumps(recipe_of(settings, self.parser), sort_keys=True).encode()).hexdigest()[:8]
        folder = self.folder / "fresh" / f"{Path(name).stem.replace(' ', '_')}_{digest}" / f"seed_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        result = folder / "errors.json"
        errors: int | None
        with locked(folder / LOCK, wait):
            if result.exists():
                errors = json.loads(result.read_text())
                return errors
            run = folder / f"run_{len(list(folder.glob('run_*')))}"  # the others were killed
            try:
                errors, _ = train_held_out(self.parser, settings, seed, run)
                outcome = f"{errors} errors"
            except Exception as error:  # a network of the user can raise any
                errors, outcome = None, f"failed: {describe_failure(error)}"
            write_json(result, errors)
        print(f"Fresh seed {seed} of {name}: {outcome}", flush=True)
        return errors
