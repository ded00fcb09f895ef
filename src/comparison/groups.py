"""Which runs are compared: groups of runs that differ only in their seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.runs.checkpoints import MNIST
from src.runs.folder import Run, find_runs
from src.runs.recipe import differences, recipe
from src.runs.trust import resume_command
from src.system.errors import UserError

LeftOut = dict[Path, str]  # run folder → the reason

NEEDED_RESULTS = {"model", "parameters", "epochs", "seed", "curves", "train_seconds"}


@dataclass
class Group:
    """Runs of one network and one recipe."""

    name: str
    recipe: dict[str, Any]
    runs: list[Run]


def find_groups(folders: list[Path]) -> tuple[list[Group], LeftOut]:
    """Find the networks below each folder; of each, the recipe with the most finished runs.

    Returns:
        The groups, and for each other run the reason why it is left out.

    Raises:
        UserError: A folder holds no finished run.
    """
    groups: list[Group] = []
    left_out: LeftOut = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}.")
        runs = find_runs(folder)
        problems = {run.folder: problem for run in runs if (problem := problem_of(run))}
        left_out |= problems
        finished = [run for run in runs if run.folder not in problems]
        if not finished:
            problem = f"There is no finished run below {folder}. Train one with fit."
            raise UserError("\n".join([problem, *list_left_out(problems)]))
        for model in dict.fromkeys(run.results["model"] for run in finished):
            by_recipe: list[Group] = []
            for run in finished:
                if run.results["model"] == model:
                    merge(by_recipe, Group(model, recipe(run.config), [run]))
            chosen = max(by_recipe, key=lambda group: len(group.runs))
            merge(groups, chosen)
            for other in by_recipe:
                if other is not chosen:
                    settings = "; ".join(differences(other.recipe, chosen.recipe)).replace(" and ", ", not ")
                    problem = f"Its settings differ from those of most runs there: {settings}."
                    left_out |= {run.folder: problem for run in other.runs}
    return groups, left_out


def merge(groups: list[Group], new: Group) -> None:
    """Append a group, or add its runs to the group of the same recipe."""
    for group in groups:
        if group.recipe == new.recipe:
            group.runs += [run for run in new.runs if run not in group.runs]
            return
    groups.append(new)


def count_each_seed_once(groups: list[Group], left_out: LeftOut) -> None:
    """Keep the first run of each seed, in the order of the seeds."""
    for group in groups:
        chosen: dict[int, Run] = {}
        for run in group.runs:
            first = chosen.setdefault(run.results["seed"], run)
            if first is not run:
                left_out[run.folder] = f"Seed {run.results['seed']} is already counted, with {first.folder}."
        group.runs = [chosen[seed] for seed in sorted(chosen)]


def common_data_set(recipes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what chooses the data set of all these recipes: `class_path`, and of `MNISTDataModule` two arguments.

    Raises:
        UserError: They differ.
    """
    first, *others = (
        {
            "class_path": recipe.get("data.class_path", MNIST),
            "classes": recipe.get("data.classes"),
            "dataset": recipe.get("data.dataset", "mnist"),
        }
        for recipe in recipes
    )
    for other in others:
        if other != first:
            names = [_name_of_data(one) for one in (first, other)]
            raise UserError(f"Runs on different data sets can't be compared: {names[0]}, and {names[1]}.")
    return first


def _name_of_data(data_set: dict[str, Any]) -> str:
    if data_set["class_path"] != MNIST:
        return str(data_set["class_path"])
    return ", ".join(map(str, data_set["classes"])) if data_set["classes"] else str(data_set["dataset"])


def data_differences(groups: Sequence[Group]) -> list[str]:
    """Return a sentence about the data settings in which the groups differ, if they do."""
    names = sorted({name for group in groups for name in group.recipe if name.startswith("data.")})
    values = {name: list(dict.fromkeys(str(group.recipe.get(name)) for group in groups)) for name in names}
    settings = [f"{name}: {' and '.join(several)}" for name, several in values.items() if len(several) > 1]
    return [f"The data settings differ: {'; '.join(settings)}."] if settings else []


def early_stops(groups: Sequence[Group]) -> list[str]:
    """Return a sentence about each group with runs that stopped early, for example by ``--trainer.max_time``."""
    sentences = []
    for group in groups:
        steps = sorted(run.results["steps"] for run in group.runs if run.results.get("stopped_early"))
        if steps:
            several = f"{steps[0]:,} to " if steps[0] < steps[-1] else ""
            runs = f"{len(steps)} of the {len(group.runs)} runs of {group.name}"
            sentences.append(f"Stopped early: {runs}, after {several}{steps[-1]:,} steps.")
    return sentences


def name_apart(groups: list[Group]) -> None:
    """Add the settings that differ to the names of groups of the same network."""
    names = [group.name for group in groups]
    for group, network in zip(groups, names, strict=True):
        others = [other for other, name in zip(groups, names, strict=True) if name == network and other is not group]
        settings = [
            f"{name.rpartition('.')[2]} {value}"
            for name, value in group.recipe.items()
            if any(other.recipe.get(name) != value for other in others)
        ]
        if settings:
            group.name += f" ({', '.join(settings)})"


def problem_of(run: Run) -> str | None:
    """Return why a run can't be compared: it is not finished, or a file lacks what a comparison needs."""
    if not run.is_finished:
        return f"It is not finished. Continue it: {resume_command(run)}"
    try:
        if missing := sorted(NEEDED_RESULTS - run.results.keys()):
            return f"Its results.json has no {', '.join(missing)}. It is damaged, or another version wrote it."
        if not isinstance(recipe(run.config).get("data.classes", []), list):
            return "Its config.yaml has classes that are no list of names."
    except UserError as error:
        return str(error)
    return None


def list_left_out(left_out: LeftOut) -> list[str]:
    """Return a line for each run that is left out."""
    return [f"Left out: {folder}: {problem}" for folder, problem in left_out.items()]
