"""The runs that a comparison trains first: configs with their seeds, and the record of how many were planned."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from src.comparison.groups import Group, problem_of
from src.runs.folder import find_runs, runs_folder, short_name
from src.runs.recipe import has_recipe, recipe_of
from src.system.errors import UserError
from src.system.files import write_json
from src.training.side_by_side import Job, run_side_by_side

KEPT = "Finished runs are kept. Run the same command again to continue."


@dataclass(frozen=True)
class PlannedRuns:
    """The runs of one config with the seeds 0, 1, …"""

    config: Path
    name: str  # of the network
    recipe: dict[str, Any]  # see `src.runs.recipe`
    settings: Namespace
    n_seeds: int

    def finished(self) -> Group:
        """Return those that are finished, of which some may have been trained for another purpose."""
        folder = runs_folder(self.settings)  # only now, as another class of this name may have got the short name
        runs = [run for run in find_runs(folder) if not problem_of(run) and has_recipe(run, self.recipe)]
        return Group(self.name, self.recipe, [run for run in runs if run.results["seed"] in range(self.n_seeds)])


def plan_runs(fit_parser: LightningArgumentParser, configs: list[Path], n_seeds: int) -> list[PlannedRuns]:
    """Read the configs. Raises a `UserError` if one names no network, or two train the same."""
    planned: list[PlannedRuns] = []
    for path in configs:
        settings = fit_parser.parse_args([f"--config={path}"])
        if settings.model is None:
            raise UserError(f"{path} names no network.")
        recipe = recipe_of(settings, fit_parser)
        if same := [plan.config for plan in planned if plan.recipe == recipe]:
            raise UserError(f"{path} trains the same as {same[0]}.")
        name = short_name(settings.model.class_path)
        planned.append(PlannedRuns(path, name, recipe, settings, n_seeds))
    return planned


def train_missing(planned: list[PlannedRuns], n_processes: int, logs: Path) -> list[Group]:
    """Train every config with every seed. Finished runs are skipped; an interrupted run is continued.

    The networks take turns, so that other load on the machine affects all of them.

    Returns:
        The runs of each config.

    Raises:
        UserError: A training has failed. The others were trained.
    """
    finished = [{run.results["seed"] for run in plan.finished().runs} for plan in planned]
    jobs = [
        Job(
            f"{plan.config.stem}, seed {seed}",
            ["fit", f"--config={plan.config}", f"--seed_everything={seed}", "--resume=auto"],
            logs / f"{plan.config.stem}-seed-{seed}.log",
        )
        for seed in range(max((plan.n_seeds for plan in planned), default=0))
        for plan, seeds in zip(planned, finished, strict=True)
        if seed not in seeds
    ]
    if failed := run_side_by_side(jobs, n_processes, KEPT):
        raise UserError("\n".join([*failed, KEPT]))
    groups = [plan.finished() for plan in planned]
    if without := [plan.config for plan, group in zip(planned, groups, strict=True) if not group.runs]:
        raise UserError(f"The trainings of {without[0]} leave no results. Does it turn off the test or the logger?")
    return groups


def fix_number(planned: list[PlannedRuns], path: Path) -> str:
    """Record in a file when the number of seeds was fixed, and return the sentences about it for the report.

    A number that is changed after the results are known can favour one of them. So every change is reported.
    """
    if not planned:
        return "This program did not fix the number of runs in advance."
    finished = sum(len(plan.finished().runs) for plan in planned)
    try:
        fixed = json.loads(path.read_text()) if path.exists() else []
    except ValueError:
        raise UserError(f"{path} is damaged. Delete it; the record of earlier numbers of runs is lost.") from None
    if not fixed or fixed[-1]["seeds"] != planned[0].n_seeds:
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        fixed.append({"seeds": planned[0].n_seeds, "fixed": when, "finished_runs": finished})
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, fixed)
    return " ".join(
        f"The number of runs was fixed at {entry['seeds']} of each on {entry['fixed']}, "
        f"when {entry['finished_runs'] or 'none'} were finished."
        for entry in fixed
    )
