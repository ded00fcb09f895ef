"""From folders and configs to a comparison: the runs of each network and their answers to the test images."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.comparison.corruptions import measure_robustness
from src.comparison.groups import (
    Group,
    LeftOut,
    common_data_set,
    count_each_seed_once,
    data_differences,
    early_stops,
    find_groups,
    list_left_out,
    merge,
    name_apart,
)
from src.comparison.planned import PlannedRuns, fix_number, train_missing
from src.comparison.result import Comparison, Contender
from src.data import MNISTDataModule
from src.runs.answers import Answers, digest, read_answers
from src.runs.checkpoints import MNIST, Checkpoint, data_settings
from src.runs.network import load_network
from src.system.errors import UserError

FILES = ("report.html", "plan.json")  # a folder with one of these belongs to a comparison


def compare_runs(
    folders: list[Path],
    planned: list[PlannedRuns],
    n_processes: int,
    margin: float,
    output: Path,
    name: str | None,
    data_dir: Path | None,
    command: list[str],
) -> Comparison:
    """Train the missing runs of `planned`, and compare all networks. For the arguments see the command, `compare`."""
    groups, left_out = find_groups(folders)
    for plan in planned:
        merge(groups, Group(plan.name, plan.recipe, []))
    _require_two(groups, {})
    data_set = common_data_set([group.recipe for group in groups])
    folder = _folder(output, name, groups)
    number_of_runs = fix_number(planned, folder / "plan.json")
    for group in train_missing(planned, n_processes, folder / "logs"):
        merge(groups, group)
    count_each_seed_once(groups, left_out)
    name_apart(groups)
    test_set = _test_set(groups, data_dir, data_set)
    contenders = _read_contenders(groups, test_set, left_out)
    _require_two(contenders, left_out)
    return Comparison(
        contenders=contenders,
        margin=margin,
        images_NHW=test_set.images_NHW,
        shape=test_set.shape,
        classes=test_set.classes,
        notes=[*data_differences(contenders), *early_stops(contenders)],
        left_out=left_out,
        number_of_runs=number_of_runs,
        folder=folder,
        command=command,
    )


def add_robustness(comparison: Comparison) -> None:
    """Test all runs on corrupted images. Raises a `UserError` for another data module than MNIST's."""
    if comparison.images_NHW is None:
        raise UserError("--robustness corrupts grey images of 28×28 pixels, which these runs were not trained on.")
    runs = [run for contender in comparison.contenders for run in contender.runs]
    rates = iter(measure_robustness(runs, comparison.images_NHW, torch.from_numpy(comparison.labels_N)))
    for contender in comparison.contenders:
        contender.robustness_SCL = np.stack([next(rates) for _ in contender.runs])


def _folder(output: Path, name: str | None, groups: list[Group]) -> Path:
    """Return the folder of the comparison. Refuse one with other files in it, which the report could replace."""
    networks = "-vs-".join(dict.fromkeys(group.name for group in groups)).lower()
    folder = output / (name or re.sub(r"[^\w.-]", "_", networks).lstrip(".")[:100])
    if folder.exists() and any(folder.iterdir()) and not any((folder / file).exists() for file in FILES):
        raise UserError(f"{folder} has other files in it. Choose another folder with --name.")
    return folder


@dataclass(frozen=True)
class TestSet:
    """The test images of a comparison."""

    digest: str
    labels_N: Tensor
    classes: list[str]
    shape: tuple[int, ...]  # of one image, as the networks get it
    images_NHW: Tensor | None  # uint8, of MNIST's data module


def _test_set(groups: list[Group], data_dir: Path | None, data_set: dict[str, Any]) -> TestSet:
    """The test set: that of MNIST's data module, or else what the answers of the runs say about theirs."""
    runs = [run for group in groups for run in group.runs]
    if data_set.pop("class_path") == MNIST:
        data = MNISTDataModule(str(data_dir or data_settings(runs[0].config)[1]["data_dir"]), **data_set)
        data.splits = ("test",)
        data.prepare_data()
        data.setup("test")
        images_NHW, labels_N = data.test
        assert data.shape is not None  # after `setup`
        return TestSet(digest(images_NHW, labels_N), labels_N, data.classes, data.shape, images_NHW)
    for run in runs:
        with suppress(UserError):  # which leaves the run out below
            answers = read_answers(run)
            if answers.labels_N is not None and answers.classes and answers.shape is not None:
                labels_N = torch.from_numpy(answers.labels_N)
                return TestSet(answers.test_set, labels_N, answers.classes, answers.shape, None)
    raise UserError(f"None of the {len(runs)} runs has answers that can be compared.")


def _read_contenders(groups: list[Group], test_set: TestSet, left_out: LeftOut) -> list[Contender]:
    """Read the answers of all runs. Returns the groups that still have runs."""
    labels_N = test_set.labels_N
    contenders = []
    for group in groups:
        answers, trained = [], None
        for run in list(group.runs):
            try:
                answers_of_run = read_answers(run)
                _check(answers_of_run, test_set.digest, (len(labels_N), len(test_set.classes)))
                trained = trained or load_network(Checkpoint.read(run.checkpoint))
            except UserError as error:
                left_out[run.folder] = str(error)
                group.runs.remove(run)
            else:
                answers.append(answers_of_run.probabilities_NK)
        if trained is not None:
            contenders.append(
                Contender(group.name, group.recipe, group.runs, trained, labels_N.numpy(), np.stack(answers))
            )
    return contenders


def _check(answers: Answers, test_set: str, shape: tuple[int, int]) -> None:
    """Raise a `UserError` if these are not the answers to the whole test set (N images, K classes)."""
    n_images, n_classes = answers.probabilities_NK.shape
    if (n_images, n_classes) != shape:
        tested = f"It was tested on {n_images:,} images of {n_classes} classes"
        raise UserError(f"{tested}; this test set has {shape[0]:,} of {shape[1]}.")
    if answers.test_set != test_set:
        raise UserError("It was tested on another test set.")
    if not np.isfinite(answers.probabilities_NK).all():
        raise UserError("Its network answers with NaN.")


def _require_two(groups: Sequence[Group], left_out: LeftOut) -> None:
    if len(groups) < 2:
        problem = "No finished runs to compare."
        if groups:
            problem = f"There is only {groups[0].name} to compare. Name runs of two networks or more."
        raise UserError("\n".join([problem, *list_left_out(left_out)]))
