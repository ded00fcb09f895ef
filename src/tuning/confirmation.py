"""Fresh seeds: how sure it is that the winner of a search is better than the runner-up and than other recipes."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from jsonargparse import Namespace
from numpy.typing import NDArray
from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from src.runs.recipe import recipe_of
from src.system.files import locked
from src.tuning import results
from src.tuning.search import Search, describe_time_left
from src.tuning.study import LOCK, complete, finished, folder_of, number_of, open_study, work
from src.tuning.trial import train_held_out


@dataclass(frozen=True)
class Candidate:
    """A recipe that is trained with fresh seeds."""

    name: str
    config: Namespace


class Confirmation:
    """Trains the best two trials of a search, and other recipes, with seeds that the search did not use.

    The result of the best of many trials is partly chance. Fresh seeds show the errors to expect. The runs are trials
    of another study, so they are shared among processes, stopped and continued like those of the search.

    Args:
        search: Its trials are finished.
        against: Other recipes.
        n_seeds: The number of fresh seeds.
    """

    def __init__(self, search: Search, against: list[Candidate], n_seeds: int) -> None:
        self.search = search
        self.n_seeds = n_seeds
        self.study: Study | None = None
        trials = complete(search.study)
        second = [trial for trial in trials if trial.params != trials[0].params][:1]  # the best with other settings
        self.best = [*trials[:1], *second]
        self.candidates = [
            *(Candidate(f"Trial {number_of(trial)}", search.config_of(trial.params)) for trial in self.best),
            *against,
        ]

    def run(self) -> None:
        """Take part in the runs until all are finished."""
        if len(self.candidates) < 2 or self.n_seeds == 0:
            return
        recipes = [recipe_of(candidate.config, self.search.parser) for candidate in self.candidates]
        name = sha256(json.dumps(recipes, sort_keys=True).encode()).hexdigest()[:8]
        self.folder = self.search.folder / "confirmation" / name
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / LOCK):
            self.study = open_study(self.search.database, f"{self.search.folder.name}/confirmation/{name}", {})
            known = [
                (trial.user_attrs["seed"], trial.user_attrs["candidate"])
                for trial in self.study.get_trials(deepcopy=False)
            ]
            first = self.search.n_seeds
            for seed in range(first, first + self.n_seeds):
                for candidate, one in enumerate(self.candidates):
                    if (seed, candidate) not in known:
                        own = f"{one.name.lower().replace(' ', '_')}/seed_{seed}"
                        attrs = {"seed": seed, "candidate": candidate, "folder": own}
                        self.study.enqueue_trial({}, user_attrs=attrs)
                        known.append((seed, candidate))
        self.total = len(set(known))
        work(self.study, self.folder, self.total, {}, self._judge, self._keep)

    def _judge(self, trial: Trial, folder: Path) -> float:
        seed, candidate = trial.user_attrs["seed"], self.candidates[trial.user_attrs["candidate"]]
        errors, n_images = train_held_out(self.search.parser, candidate.config, seed, folder, [])
        trial.set_user_attr("images", n_images)
        return errors

    def _keep(self, trial: FrozenTrial) -> None:
        assert self.study is not None
        results.remove_checkpoints(folder_of(trial, self.folder))
        seed, name = trial.user_attrs["seed"], self.candidates[trial.user_attrs["candidate"]].name
        is_complete = trial.state == TrialState.COMPLETE
        ended = f"{trial.value:g} errors" if is_complete else f"failed: {trial.user_attrs.get('reason')}"
        done = len(finished(self.study))
        time_left = f". {describe_time_left(self.study, self.total - done)}" if self.total > done else ""
        print(f"Fresh seed {seed} of {name} ({done} of {self.total}): {ended}{time_left}", flush=True)

    def errors(self) -> list[NDArray[np.float64]]:
        """The errors of each candidate, one for each fresh seed. Empty without fresh seeds."""
        if self.study is None:
            return []
        trials = complete(self.study)
        return [
            np.array([trial.value for trial in trials if trial.user_attrs["candidate"] == number])
            for number in range(len(self.candidates))
        ]
