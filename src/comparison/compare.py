"""From runs to verdicts: finds the runs, trains the missing ones, tests them, and compares each pair of networks."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.comparison.first_answer import first_answer
from src.comparison.groups import (
    Group,
    LeftOut,
    common_classes,
    count_each_seed_once,
    data_differences,
    early_stops,
    find_groups,
    merge,
    name_apart,
)
from src.comparison.result import Comparison, Network
from src.comparison.trainings import Trainings, fix_number, train_missing
from src.data import MNISTDataModule
from src.evaluation.answers import evaluate
from src.runs.network import TrainedNetwork
from src.system.errors import UserError


def compare(
    folders: list[Path],
    planned: list[Trainings],
    margin: float,
    output: Path,
    name: str | None,
    data_dir: Path | None,
    command: list[str],
    n_processes: int = 1,
) -> Comparison:
    """Train the missing runs of `planned`, and compare all networks. Prints a first answer before the evaluation.

    Args:
        folders: Folders of runs.
        planned: Trainings whose runs are compared too.
        margin: The largest difference, in images, that doesn't matter.
        output: Folder of all comparisons.
        name: Folder of this one; by default the names of the networks.
        data_dir: Of the data; by default that of the first run.
        command: The command line that makes the comparison again.
        n_processes: How many runs are trained at a time.
    """
    groups, left_out = _find_groups(folders, planned)
    classes = common_classes([group.recipe for group in groups])
    names = dict.fromkeys(group.name for group in groups)
    folder = output / (name or re.sub(r"[^\w.-]", "_", "-vs-".join(names).lower()).lstrip("."))
    number_of_runs = fix_number(planned, folder / "plan.json")
    for group in train_missing(planned, n_processes):
        merge(groups, group)
    _answer_first(groups, left_out, margin)
    data = MNISTDataModule(str(data_dir or groups[0].runs[0].config["data"]["data_dir"]), classes=classes)
    networks = _test(groups, data, left_out)
    _require_two(networks, left_out)
    return Comparison(
        networks=networks,
        margin=margin,
        images_NHW=data.test[0],
        classes=data.classes,
        notes=[*data_differences(networks), *early_stops(networks)],
        left_out=left_out,
        number_of_runs=number_of_runs,
        folder=folder,
        command=command,
    )


def _find_groups(folders: list[Path], planned: list[Trainings]) -> tuple[list[Group], LeftOut]:
    """Group the runs by their recipes, with an empty group for each planned training without runs."""
    groups, left_out = find_groups(folders)
    for trainings in planned:
        merge(groups, Group(trainings.name, trainings.settings, []))
    _require_two(groups, {})
    return groups, left_out


def _answer_first(groups: list[Group], left_out: LeftOut, margin: float) -> None:
    """Give each seed of a group one run and each group its own name, and print what their results say."""
    count_each_seed_once(groups, left_out)
    name_apart(groups)
    if answer := first_answer(groups, margin):
        print(f"From results.json of the runs:\n\n{answer}\n", flush=True)


def _test(groups: list[Group], data: MNISTDataModule, left_out: LeftOut) -> list[Network]:
    """Evaluate all runs. Returns the groups that still have runs, with their answers."""
    data.prepare_data()
    data.setup("test")
    images_NHW, labels_N = data.test
    evaluations, unusable = evaluate([run for group in groups for run in group.runs], images_NHW, labels_N)
    left_out |= {run.folder: reason for run, reason in unusable.items()}
    networks = []
    for group in groups:
        if runs := [run for run in group.runs if run in evaluations]:
            trained = TrainedNetwork(runs[0].checkpoint).network
            probabilities_SNK = np.stack([evaluations[run].probabilities_NK for run in runs])
            robustness_SCS = np.stack([evaluations[run].robustness_CS for run in runs])
            networks.append(
                Network(group.name, group.recipe, runs, trained, labels_N.numpy(), probabilities_SNK, robustness_SCS)
            )
    return networks


def _require_two(groups: Sequence[Group], left_out: LeftOut) -> None:
    if len(groups) < 2:
        problem = "No finished runs to compare."
        if groups:
            problem = f"There is only {groups[0].name} to compare. Name runs of two networks or more."
        raise UserError(problem + "".join(f"\nLeft out: {folder}: {reason}" for folder, reason in left_out.items()))
