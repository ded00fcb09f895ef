"""Every number of a comparison, as plain data: what report.json holds and report.html shows."""

from collections import Counter
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn
from torchmetrics.functional.classification import multiclass_calibration_error

from src.comparison import statistics
from src.comparison.groups import Group
from src.comparison.statistics import Difference, Wrong
from src.comparison.words import sentences
from src.evaluation.answers import Evaluation
from src.evaluation.corruptions import CORRUPTIONS
from src.models import Classifier
from src.runs.folder import Run

# The published comparison, one run of each: epochs and errors in the 10,000 test images.
PUBLISHED = {"LeNet5": (30, 77), "CNN": (12, 84)}
BINS = 15  # of confidence
LAST_EPOCHS = 5
HARDEST = 24  # images shown


def collect(
    groups: list[Group],
    evaluations: dict[Run, Evaluation],
    networks: list[Classifier],
    labels_N: NDArray[np.int64],
    classes: list[str],
    margin: float,
) -> dict[str, Any]:
    """Compare groups of runs.

    Args:
        groups: Two or more.
        evaluations: Of every run in `groups`.
        networks: One network of each group.
        labels_N: The labels of the test images.
        classes: Their names.
        margin: The largest difference, in images, that doesn't matter.
    """
    answers = [np.stack([evaluations[run].probabilities_NK for run in group.runs]) for group in groups]  # (S, N, K)
    wrong = [probabilities_SNK.argmax(axis=2) != labels_N for probabilities_SNK in answers]
    described = [
        _network(group, network, probabilities_SNK, labels_N)
        | {"robustness": _robustness(np.stack([evaluations[run].robustness_CS for run in group.runs]))}
        for group, network, probabilities_SNK in zip(groups, networks, answers, strict=True)
    ]
    last_epochs = [network["last_epochs"]["runs"] for network in described if network["last_epochs"]]
    secondary = statistics.seeds([np.array(runs) for runs in last_epochs]) if len(last_epochs) == len(groups) else {}
    return {
        "images": len(labels_N),
        "classes": classes,
        "margin": margin,
        "networks": described,
        "pairs": [
            _pair(described[a], described[b], wrong[a], wrong[b], difference, margin, len(groups))
            | {"last_epochs": asdict(interval) if (interval := secondary.get((a, b))) else None}
            for (a, b), difference in statistics.compare(wrong).items()
        ],
        "always_wrong": _always_wrong([network["name"] for network in described], wrong),
        "hardest": _hardest(answers, labels_N),
    }


# --- One network ---------------------------------------------------------------------------------------


def _network(
    group: Group, network: Classifier, probabilities_SNK: NDArray[np.float32], labels_N: NDArray[np.int64]
) -> dict[str, Any]:
    results = [run.results for run in group.runs]
    answers_SN = probabilities_SNK.argmax(axis=2)
    errors = (answers_SN != labels_N).sum(axis=1)
    digits = range(probabilities_SNK.shape[2])
    on_mnist = group.recipe.get("data.classes") is None
    epochs, published = PUBLISHED.get(results[0]["model"], (0, None)) if on_mnist else (0, None)
    confidence = [_confidence(probabilities_NK, labels_N) for probabilities_NK in probabilities_SNK]
    return {
        "name": group.name,
        "parameters": results[0]["parameters"],
        "epochs": results[0]["epochs"],
        "dropout": any(isinstance(module, nn.Dropout) for module in network.modules()),
        "runs": [
            {"folder": str(run.folder), "seed": run.results["seed"], "errors": int(number)}
            for run, number in zip(group.runs, errors, strict=True)
        ],
        "errors": _summary(errors),
        "published_errors": published if epochs == results[0]["epochs"] else None,
        "train_seconds": _median_and_range([result["train_seconds"] for result in results]),
        "epoch_seconds": _median_epoch(results),
        "confusion": np.mean(
            [
                [[(answer_N[labels_N == label] == digit).sum() for digit in digits] for label in digits]
                for answer_N in answers_SN
            ],
            axis=0,
        ).tolist(),
        "digits": [_summary((answers_SN[:, labels_N == digit] == digit).mean(axis=1)) for digit in digits],
        "curves": _curves(results),
        "last_epochs": _last_epochs(group, len(labels_N)),
        "confidence": {name: _summary([run[name] for run in confidence]) for name in ("ece", "nll", "brier")},
        "reliability": {
            name: np.mean([run[name] for run in confidence], axis=0).tolist() for name in ("counts", "right")
        },
    }


def _summary(values: Any) -> dict[str, float | None]:
    """Mean, standard deviation and 95 % interval of the mean (Student's t); None where one run can't tell."""
    values_S = np.asarray(values, dtype=float)
    if len(values_S) < 2:
        return {"mean": float(values_S.mean()), "sd": None, "low": None, "high": None}
    mean, sd = values_S.mean(), values_S.std(ddof=1)
    half = stats.t.ppf((1 + statistics.LEVEL) / 2, len(values_S) - 1) * sd / np.sqrt(len(values_S))
    return {"mean": float(mean), "sd": float(sd), "low": float(mean - half), "high": float(mean + half)}


def _median_and_range(values: list[float]) -> dict[str, float]:
    return {"median": float(np.median(values)), "low": min(values), "high": max(values)}


def _median_epoch(results: list[dict[str, Any]]) -> float:
    seconds = [list(run["curves"].get("epoch_seconds", {}).get("train", {}).values()) for run in results]
    if all(seconds):
        return float(np.median(np.concatenate(seconds)))
    return float(np.median([run["train_seconds"] / run["epochs"] for run in results]))


def _last_epochs(group: Group, images: int) -> dict[str, Any] | None:
    """Mean errors of the last five epochs, and what the best epoch would have claimed; None without test images."""
    settings = group.recipe
    if settings.get("data.val_size") != 0 or settings.get("trainer.limit_val_batches") not in (None, 1.0):
        return None
    validation = [run.results["curves"]["accuracy"]["validation"] for run in group.runs]
    errors = [[images * (1 - run[epoch]) for epoch in sorted(run, key=int)] for run in validation]
    runs = [float(np.mean(run[-LAST_EPOCHS:])) for run in errors]
    return {
        "runs": runs,
        "errors": _summary(runs),
        "best_epoch_would_claim": float(np.mean([run[-1] - min(run) for run in errors])),
    }


def _curves(results: list[dict[str, Any]]) -> dict[str, Any]:
    """tag → sub-run → epoch, mean, low and high over the runs."""
    curves: dict[str, Any] = {}
    for tag in ("accuracy", "loss"):
        curves[tag] = {}
        for name in ("train", "validation"):
            runs = [run["curves"].get(tag, {}).get(name, {}) for run in results]
            epochs = sorted(set.intersection(*(set(map(int, run)) for run in runs)))
            values_SE = np.array([[run[str(epoch)] for epoch in epochs] for run in runs])
            curves[tag][name] = {
                "epoch": epochs,
                "mean": values_SE.mean(axis=0).tolist(),
                "low": values_SE.min(axis=0).tolist() if epochs else [],
                "high": values_SE.max(axis=0).tolist() if epochs else [],
            }
    return curves


def _confidence(probabilities_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> dict[str, Any]:
    """Calibration of one run: expected calibration error, negative log-likelihood, Brier score, and the bins."""
    images, classes = probabilities_NK.shape
    probabilities, labels = torch.from_numpy(probabilities_NK), torch.from_numpy(labels_N)
    confidence_N = probabilities_NK.max(axis=1)
    right_N = probabilities_NK.argmax(axis=1) == labels_N
    bin_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    return {
        "ece": float(multiclass_calibration_error(probabilities, labels, classes, n_bins=BINS, norm="l1")),
        "nll": float(-np.log(np.maximum(probabilities_NK[np.arange(images), labels_N], 1e-38)).mean()),
        "brier": float(((probabilities_NK - np.eye(classes)[labels_N]) ** 2).sum(axis=1).mean()),
        "counts": np.bincount(bin_N, minlength=BINS),
        "right": np.bincount(bin_N, weights=right_N, minlength=BINS),
    }


def _robustness(errors_SCS: NDArray[np.float64]) -> dict[str, Any]:
    """Share of errors: over runs for each corruption and strength, and the mean over all for each run."""
    return {
        "corruptions": {
            name: {
                "unit": corruption.unit,
                "strengths": list(corruption.strengths),
                "mean": errors_SCS[:, row].mean(axis=0).tolist(),
                "low": errors_SCS[:, row].min(axis=0).tolist(),
                "high": errors_SCS[:, row].max(axis=0).tolist(),
            }
            for row, (name, corruption) in enumerate(CORRUPTIONS.items())
        },
        "overall": _summary(errors_SCS.mean(axis=(1, 2))),
    }


# --- Pairs ---------------------------------------------------------------------------------------------


def _pair(
    a: dict[str, Any],
    b: dict[str, Any],
    wrong_a_SN: Wrong,
    wrong_b_SN: Wrong,
    difference: Difference,
    margin: float,
    networks: int,
) -> dict[str, Any]:
    """Everything about the difference of two networks."""
    errors_a, errors_b = wrong_a_SN.sum(axis=1), wrong_b_SN.sum(axis=1)
    fewer, more = (errors_a, errors_b) if difference.mean <= 0 else (errors_b, errors_a)
    pair: dict[str, Any] = {
        "a": a["name"],
        "b": b["name"],
        "fewer_errors": a["name"] if difference.mean <= 0 else b["name"],
        "difference": asdict(difference),
        "images": wrong_a_SN.shape[1],
        "margin": margin,
        "verdict": statistics.verdict(difference, margin),
        "single_runs_agree": statistics.single_runs_agree(fewer, more),
        "mcnemar": statistics.mcnemar(wrong_a_SN[0], wrong_b_SN[0]) if len(errors_a) == len(errors_b) == 1 else None,
        "misleading_pairs": statistics.misleading_pairs(wrong_a_SN, wrong_b_SN),
        "power": None,
    }
    if difference.same_images is not None:
        spreads = (float(errors_a.std(ddof=1)), float(errors_b.std(ddof=1)))
        pair["power"] = {
            "smallest_difference": statistics.smallest_difference(spreads, (len(errors_a), len(errors_b)), networks),
            "runs_needed": {
                str(images): statistics.runs_needed(images, spreads, networks)
                for images in statistics.DIFFERENCES_OF_INTEREST
            },
        }
    return pair | {"words": sentences(pair, difference, a, b)}


# --- Images --------------------------------------------------------------------------------------------


def _always_wrong(names: list[str], wrong: list[Wrong]) -> list[dict[str, Any]]:
    """The images that every run of exactly these networks gets wrong."""
    always = np.stack([wrong_SN.all(axis=0) for wrong_SN in wrong])  # (G, N)
    return [
        {
            "networks": [names[index] for index in chosen],
            "images": np.flatnonzero(
                always[list(chosen)].all(axis=0)
                & ~always[[index for index in range(len(names)) if index not in chosen]].any(axis=0)
            ).tolist(),
        }
        for size in range(len(names), 0, -1)
        for chosen in combinations(range(len(names)), size)
    ]


def _hardest(answers: list[NDArray[np.float32]], labels_N: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The images that most runs get wrong, each network counting the same; what each network says of them."""
    wrong_N = np.mean([(answers_SNK.argmax(axis=2) != labels_N).mean(axis=0) for answers_SNK in answers], axis=0)
    right_N = np.mean(
        [answers_SNK[:, np.arange(len(labels_N)), labels_N].mean(axis=0) for answers_SNK in answers], axis=0
    )
    hardest = np.lexsort((right_N, -wrong_N))[:HARDEST]
    return [
        {
            "image": int(image),
            "label": int(labels_N[image]),
            "wrong": float(wrong_N[image]),
            "answers": [_answer(answers_SNK[:, image]) for answers_SNK in answers],
        }
        for image in hardest
        if wrong_N[image] > 0
    ]


def _answer(probabilities_SK: NDArray[np.float32]) -> dict[str, Any]:
    """The most frequent answer of the runs, and the mean confidence of those that give it."""
    answers_S = probabilities_SK.argmax(axis=1)
    digit = Counter(answers_S.tolist()).most_common(1)[0][0]
    return {"digit": digit, "confidence": float(probabilities_SK[answers_S == digit, digit].mean())}
