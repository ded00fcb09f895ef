"""How well the confidence of the answers agrees with how often they are right."""

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_calibration_error

from src.comparison.result import Comparison, Contender
from src.comparison.statistics import summary
from src.report import style
from src.report.sections import Numbers

BINS = 15


def of_contender(contender: Contender) -> Numbers:
    """Return calibration, and the bins of the reliability diagram."""
    runs = [_calibration(probabilities_NK, contender.labels_N) for probabilities_NK in contender.probabilities_SNK]
    return {
        "confidence": {name: summary([run[name] for run in runs]) for name in ("ece", "nll", "brier")},
        "reliability": {name: np.mean([run[name] for run in runs], axis=0).tolist() for name in ("counts", "right")},
    }


def _calibration(probabilities_NK: NDArray[np.float32], labels_N: NDArray[np.int64]) -> Numbers:
    """Return expected calibration error, negative log-likelihood, Brier score and bins of one run."""
    N, K = probabilities_NK.shape
    confidence_N, answers_N = probabilities_NK.max(axis=1), probabilities_NK.argmax(axis=1)
    bin_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    tensors = torch.from_numpy(probabilities_NK), torch.from_numpy(labels_N)
    return {
        "ece": float(multiclass_calibration_error(*tensors, num_classes=K, n_bins=BINS, norm="l1")),
        "nll": float(-np.log(np.maximum(probabilities_NK[np.arange(N), labels_N], 1e-38)).mean()),
        "brier": float(((probabilities_NK - np.eye(K)[labels_N]) ** 2).sum(axis=1).mean()),
        "counts": np.bincount(bin_N, minlength=BINS),
        "right": np.bincount(bin_N, weights=answers_N == labels_N, minlength=BINS),
    }


def draw(numbers: Numbers, comparison: Comparison) -> Figure:
    """Draw how often answers of some confidence are right, and how many answers have that confidence."""
    networks = numbers["networks"][: style.SHOWN]
    figure = Figure(figsize=(style.WIDTH, 4.6))
    axes, histogram = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 1], [0, 1], ":", color="black", linewidth=1, label="perfectly calibrated")
    middle = (np.arange(BINS) + 0.5) / BINS
    for number, network in enumerate(networks):
        counts, right = (np.array(network["reliability"][key]) for key in ("counts", "right"))
        enough = counts >= 5  # a share of fewer is noise
        share = right[enough] / counts[enough]
        axes.plot(middle[enough], share, label=network["name"], markersize=4, **style.of_network(number))
        shift = (number - (len(networks) - 1) / 2) * 0.025
        histogram.bar(middle + shift, counts, width=0.025, color=f"C{number}")
    axes.set(title="Reliability", ylabel="Share of right answers")
    histogram.set(yscale="log", xlabel="Confidence", ylabel="Images")
    histogram.yaxis.set_major_formatter("{x:,.0f}")  # powers would be formulas
    axes.legend()
    return figure
