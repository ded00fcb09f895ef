"""Accuracy and loss over the epochs, and what the last epochs show."""

from dataclasses import asdict

import numpy as np
from matplotlib.figure import Figure

from src import plots
from src.comparison import statistics
from src.comparison.result import Comparison, Contender
from src.report import style
from src.report.sections import Numbers

LAST_EPOCHS = 5


def of_contender(contender: Contender) -> Numbers:
    """Return the curves over the epochs that all runs have, and the errors of the last epochs."""
    curves = {
        metric: {name: _curve(contender, metric, name) for name in ("train", "validation")}
        for metric in ("accuracy", "loss")
    }
    return {"curves": curves, "last_epochs": last_epochs(contender)}


def _curve(contender: Contender, metric: str, name: str) -> Numbers:
    runs = [result["curves"].get(metric, {}).get(name, {}) for result in contender.results]
    epochs = sorted(set.intersection(*(set(map(int, run)) for run in runs)))
    return {"epoch": epochs} | statistics.band([[run[str(epoch)] for epoch in epochs] for run in runs])


def last_epochs(contender: Contender) -> Numbers | None:
    """Return the mean errors of the last five epochs, and how many errors fewer the best epoch of each run has.

    None where the validation images are not all test images, or an epoch of a run has no validation.
    """
    if contender.recipe.get("data.val_size") != 0 or "trainer.limit_val_batches" in contender.recipe:
        return None
    curves = [result["curves"].get("accuracy", {}) for result in contender.results]
    accuracies = [curve.get("validation", {}) for curve in curves]
    complete = [run and run.keys() == curve["train"].keys() for run, curve in zip(accuracies, curves, strict=True)]
    if not all(complete) or any(value is None for run in accuracies for value in run.values()):
        return None
    errors = [[len(contender.labels_N) * (1 - run[epoch]) for epoch in sorted(run, key=int)] for run in accuracies]
    runs = [float(np.mean(run[-LAST_EPOCHS:])) for run in errors]
    return {
        "runs": runs,
        "errors": statistics.summary(runs),
        "best_epoch_would_claim": float(np.mean([run[-1] - min(run) for run in errors])),
    }


def of_pairs(comparison: Comparison) -> list[Numbers | None]:
    """Return the interval of the difference of each pair in the last five epochs, where it is known."""
    contenders, pairs = comparison.contenders, comparison.pairs
    of_networks = [last_epochs(contender) for contender in contenders]
    errors = [np.array(last["runs"]) for last in of_networks if last]
    if len(errors) < len(contenders):
        return [None] * len(pairs)
    intervals = statistics.intervals_over_seeds(errors)
    of_pairs = [intervals[contenders.index(pair.a), contenders.index(pair.b)] for pair in pairs]
    return [asdict(interval) if interval else None for interval in of_pairs]


def draw(numbers: Numbers, comparison: Comparison, metric: str) -> Figure:
    """Draw the mean accuracy or loss of the runs, with the band from the lowest to the highest.

    The axis is fitted to the validation curves; the first training epochs may lie outside.
    """
    lines, validation = [], []
    for number, network in enumerate(numbers["networks"][: style.SHOWN]):
        for name, linestyle in (("train", "--"), ("validation", "-")):
            curve = network["curves"][metric][name]
            line = style.of_network(number) | {"linestyle": linestyle}
            label = f"{network['name']}, {name}"
            lines.append(plots.Curve(label, curve["epoch"], curve["mean"], curve["low"], curve["high"], line))
        validation += [*curve["low"], *curve["high"]]
    figure = plots.curves(lines, metric, metric.capitalize(), figsize=(style.WIDTH, 3.8))
    validation = [value for value in validation if np.isfinite(value)]
    if len(validation) > 2:
        low, high = (0, 1.2 * max(validation)) if metric == "loss" else (1 - 1.3 * (1 - min(validation)), 1)
        figure.axes[0].set_ylim(low, high)
    return figure
