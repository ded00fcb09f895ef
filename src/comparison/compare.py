"""From runs to a verdict with error bars."""

import importlib.metadata
import platform
import re
import shlex
from pathlib import Path

from src.comparison.groups import (
    Group,
    LeftOut,
    add,
    common_classes,
    count_each_seed_once,
    data_differences,
    find_groups,
    name_apart,
)
from src.comparison.numbers import collect
from src.comparison.trainings import Trainings, fix_number, train_missing
from src.data import MNISTDataModule
from src.evaluation.answers import evaluate
from src.evaluation.corruptions import choose_images
from src.evaluation.cost import size, time_inference
from src.report.report import table, write_report
from src.runs.network import TrainedNetwork
from src.system.errors import UserError

__all__ = ["Trainings", "compare"]

ONE_NETWORK = "There is only {} to compare; name the runs of two networks or more."


def compare(
    folders: list[Path],
    planned: list[Trainings],
    margin: float,
    output: Path,
    name: str | None,
    data_dir: Path | None,
    command: list[str],
) -> None:
    """Train what is planned, compare all, write the report, and print the main table and the verdict.

    Args:
        folders: Folders of runs.
        planned: Trainings whose runs are compared too.
        margin: The largest difference, in images, that doesn't matter.
        output: Folder of all comparisons.
        name: Folder of this one; by default the names of the networks.
        data_dir: Folder of the data; by default that of the first run.
        command: The command line that makes it again.

    Raises:
        UserError: There are no two networks to compare.
    """
    groups, left_out = find_groups(folders)
    recipes = [group.recipe for group in groups]
    recipes += [one.settings for one in planned if one.settings not in recipes]
    if len(recipes) < 2:
        raise UserError(ONE_NETWORK.format(([group.name for group in groups] + [one.name for one in planned])[0]))
    classes = common_classes(recipes)
    names = dict.fromkeys([group.name for group in groups] + [one.name for one in planned])
    name = name or re.sub(r"[^\w.-]", "_", "-vs-".join(names).lower()).lstrip(".")
    number_of_runs = "The number of runs was not fixed by this program before they were made."
    if planned:
        number_of_runs = fix_number(planned, output / name / "plan.json")
        train_missing(planned)
        for trainings in planned:
            add(groups, trainings.finished())
    count_each_seed_once(groups, left_out)
    name_apart(groups)
    _at_least_two(groups, left_out)

    if data_dir is None:
        data_dir = Path(groups[0].runs[0].config["data"]["data_dir"])
    data = MNISTDataModule(str(data_dir), classes=classes)
    data.prepare_data()
    data.setup("test")
    images_NHW, labels_N = data.test
    evaluations, unusable = evaluate([run for group in groups for run in group.runs], images_NHW, labels_N)
    left_out |= {run.folder: reason for run, reason in unusable.items()}
    for group in groups:
        group.runs = [run for run in group.runs if run in evaluations]
    for folder, reason in left_out.items():
        print(f"Left out: {folder}: {reason}")
    groups = [group for group in groups if group.runs]
    _at_least_two(groups, left_out)

    networks = {group.name: TrainedNetwork(group.runs[0].checkpoint).network for group in groups}
    report = collect(groups, evaluations, list(networks.values()), labels_N.numpy(), data.classes, margin)
    for described, group in zip(report["networks"], groups, strict=True):
        described["cost"] = size(networks[group.name])
        described["settings"] = group.recipe
    report["notes"] = [f"The data settings differ: {text}." for text in data_differences(groups)]
    report["robustness_images"] = len(choose_images(labels_N))
    report["left_out"] = {str(folder): reason for folder, reason in left_out.items()}
    report["made"] = {
        "number_of_runs": number_of_runs,
        "machines": _machines(groups),
        "versions": ", ".join(
            [f"Python {platform.python_version()}"]
            + [f"{package} {importlib.metadata.version(package)}" for package in ("torch", "torchvision", "scipy")]
        ),
        "command": shlex.join(command),
    }
    report["timings"] = time_inference(networks)
    page = write_report(report, images_NHW, output / name)
    print(f"\n{table(report)}")
    for pair in report["pairs"]:
        print("\n" + "\n".join(pair["words"]))
    print(*report["notes"], sep="\n", end="\n" if report["notes"] else "")
    print(f"\nReport: {page}")


def _at_least_two(groups: list[Group], left_out: LeftOut) -> None:
    if len(groups) < 2:
        reasons = "".join(f"\nLeft out: {folder}: {reason}" for folder, reason in left_out.items())
        raise UserError(ONE_NETWORK.format(groups[0].name if groups else "nothing") + reasons)


def _machines(groups: list[Group]) -> list[str]:
    machines = [run.results.get("machine", {}) for group in groups for run in group.runs]
    return list(dict.fromkeys(", ".join(f"{key} {value}" for key, value in machine.items()) for machine in machines))
