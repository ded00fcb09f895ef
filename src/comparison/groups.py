"""Which runs are compared: groups of runs that differ only in their seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.runs.folder import Run, find_runs
from src.runs.recipe import differences, recipe
from src.system.errors import UserError

LeftOut = dict[Path, str]  # run folder → the reason

NEEDED_RESULTS = {"model", "parameters", "epochs", "seed", "test", "curves", "train_seconds"}


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
        finished = [run for run in find_runs(folder) if is_usable(run, left_out)]
        if not finished:
            raise UserError(f"There is no finished run below {folder}. Train one: python -m src fit --config …")
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
                    reason = f"Its settings differ from those of most runs there: {settings}."
                    left_out |= {run.folder: reason for run in other.runs}
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


def common_classes(recipes: list[dict[str, Any]]) -> list[str] | None:
    """Return the classes that all these recipes have, see `MNISTDataModule`.

    Raises:
        UserError: They differ, so the data sets do.
    """
    first, *others = (recipe.get("data.classes") for recipe in recipes)
    for other in others:
        if other != first:
            names = [", ".join(classes) if classes else "MNIST's digits" for classes in (first, other)]
            raise UserError(f"Runs on different data sets can't be compared: {names[0]}, and {names[1]}.")
    return first


def data_differences(groups: Sequence[Group]) -> list[str]:
    """Return a sentence about the data settings in which the groups differ, if they do."""
    data = [{name: value for name, value in group.recipe.items() if name.startswith("data.")} for group in groups]
    found = dict.fromkeys(text for other in data[1:] for text in differences(data[0], other))
    return [f"The data settings differ: {'; '.join(found)}."] if found else []


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


def is_usable(run: Run, left_out: LeftOut) -> bool:
    """Whether a run is finished and its files have what a comparison needs. If not, add the reason to `left_out`."""
    if not run.is_finished:
        left_out[run.folder] = f"It is not finished. Continue it: python -m src fit --resume {run.folder}"
        return False
    try:
        if missing := NEEDED_RESULTS - run.results.keys():
            raise UserError(f"Its results.json has no {', '.join(sorted(missing))}. Another version wrote it.")
        if not isinstance(run.results["model"], str):
            raise UserError("Its results.json names no network.")
        if not all(isinstance(run.results["test"].get(name), int) for name in ("errors", "images")):
            raise UserError("Its results.json has no test errors.")
        classes = recipe(run.config).get("data.classes", [])
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise UserError("Its config.yaml names no classes.")
    except (UserError, AttributeError) as error:
        left_out[run.folder] = str(error)
        return False
    return True
