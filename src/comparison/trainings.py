"""The runs that a comparison still needs: each is trained in its own process, one or several at a time."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from src.comparison.groups import Group, is_usable
from src.runs.folder import find_runs
from src.runs.recipe import Role, has_recipe
from src.system.errors import UserError
from src.system.files import write_whole
from src.training.side_by_side import Job, run_side_by_side

KEPT = "Finished runs are kept. Run the same command again to continue."


@dataclass(frozen=True)
class Trainings:
    """One config, trained with the seeds 0, 1, …"""

    config: str
    name: str  # of the network
    settings: dict[str, Any]  # see `src.runs.recipe`
    folder: Path  # of its runs
    n_seeds: int

    def finished(self) -> Group:
        runs = [run for run in find_runs(self.folder) if is_usable(run, {}) and has_recipe(run, self.settings)]
        return Group(self.name, self.settings, [run for run in runs if run.results["seed"] in range(self.n_seeds)])

    def has(self, seed: int) -> bool:
        """Whether the run with this seed is finished."""
        return seed in [run.results["seed"] for run in self.finished().runs]

    def is_training(self, seed: int) -> bool:
        """Whether a process trains the run with this seed."""
        settings = self.settings | {"seed_everything": seed, "data.seed": seed}
        return any(has_recipe(run, settings, Role.SURROUNDINGS) and run.is_busy for run in find_runs(self.folder))

    def lock(self, seed: int) -> Path:
        """The file that is locked while a comparison trains the run with this seed."""
        digest = sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return self.folder.parent / ".locks" / f"{digest[:12]}-seed{seed}"


def train_missing(planned: list[Trainings], n_processes: int = 1) -> list[Group]:
    """Train every config with every seed. Finished runs are skipped; an interrupted run is continued.

    The networks take turns, so that other load on the machine affects all of them. Several comparisons may share the
    folder of the runs: each run is trained by one of them.

    Args:
        planned: What to train.
        n_processes: How many runs are trained at a time.

    Returns:
        The runs of each config.

    Raises:
        UserError: A training has failed. The others were trained.
    """
    wanted = [(seed, trainings) for seed in range(planned[0].n_seeds) for trainings in planned] if planned else []
    jobs = [
        _job(number, seed, trainings, wanted, n_processes)
        for number, (seed, trainings) in enumerate(wanted, start=1)
        if not trainings.has(seed)
    ]
    if failed := run_side_by_side(jobs, n_processes, KEPT):
        raise UserError("\n".join([*failed, KEPT]))
    if without := [trainings.config for trainings in planned if not trainings.finished().runs]:
        raise UserError(f"The trainings of {without[0]} leave no results. Does it turn off the test or the logger?")
    return [trainings.finished() for trainings in planned]


def _job(number: int, seed: int, trainings: Trainings, wanted: list[tuple[int, Trainings]], n_processes: int) -> Job:
    words = ["fit", "--config", trainings.config, "--seed_everything", str(seed), "--resume", "auto"]
    return Job(
        f"{Path(trainings.config).stem}, seed {seed}",
        words if n_processes == 1 else [*words, "--trainer.enable_model_summary=false"],
        lambda: f"\nRun {number} of {len(wanted)}: {trainings.name}, seed {seed}{_time_left(wanted, n_processes)}",
        trainings.lock(seed),
        lambda: trainings.has(seed),
        lambda: trainings.is_training(seed),
    )


def fix_number(planned: list[Trainings], path: Path) -> str:
    """Record in a file when the number of seeds was fixed, and return the sentences about it for the report.

    A number that is changed after the results are known can favour one of them. So every change is reported.
    """
    if not planned:
        return "This program did not fix the number of runs in advance."
    finished = sum(len(trainings.finished().runs) for trainings in planned)
    try:
        fixed = json.loads(path.read_text()) if path.exists() else []
    except ValueError:
        raise UserError(f"{path} is damaged. Delete it; the record of earlier numbers of runs is lost.") from None
    if not fixed or fixed[-1]["seeds"] != planned[0].n_seeds:
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        fixed.append({"seeds": planned[0].n_seeds, "fixed": when, "finished_runs": finished})
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{json.dumps(fixed, indent=1)}\n".encode())
    return " ".join(
        f"The number of runs was fixed at {entry['seeds']} of each on {entry['fixed']}, "
        f"when {entry['finished_runs'] or 'none'} were finished."
        for entry in fixed
    )


def _time_left(wanted: list[tuple[int, Trainings]], n_processes: int) -> str:
    seconds = 0.0
    for trainings in {id(trainings): trainings for _, trainings in wanted}.values():
        done = [run.results["train_seconds"] for run in trainings.finished().runs]
        if not done:
            return " (time left unknown until each network has a run)"
        seconds += (trainings.n_seeds - len(done)) * sum(done) / len(done)
    return f" (about {max(1, round(seconds / n_processes / 60))} min left)"
