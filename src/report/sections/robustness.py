"""Errors on corrupted images, if the runs were tested on them."""

import numpy as np
from matplotlib.figure import Figure

from src.comparison.corruptions import CORRUPTIONS
from src.comparison.result import Comparison, Contender
from src.comparison.statistics import band, summary
from src.report import style
from src.report.sections import Numbers


def of_contender(contender: Contender) -> Numbers | None:
    """Return the error rates under each corruption, and over all; None where they were not measured."""
    if (rates_SCL := contender.robustness_SCL) is None:
        return None
    return {
        "corruptions": {name: band(rates_SCL[:, row]) for row, name in enumerate(CORRUPTIONS)},
        "overall": summary(rates_SCL.mean(axis=(1, 2))),
    }


def draw(numbers: Numbers, comparison: Comparison) -> Figure:
    """Draw the errors over the level of each corruption: mean of the runs, with the band from lowest to highest."""
    networks = numbers["networks"][: style.SHOWN]
    rows = -(-len(CORRUPTIONS) // 2)
    figure = Figure(figsize=(style.WIDTH, 1.75 * rows + 0.4))
    for place, (name, corruption) in enumerate(CORRUPTIONS.items(), start=1):
        axes = figure.add_subplot(rows, 2, place, title=name)
        axes.set_xlabel(corruption.unit, fontsize=9)
        axes.set_ylabel("Errors in %", fontsize=9)
        levels = range(len(corruption.strengths))
        for number, network in enumerate(networks):
            errors = network["robustness"]["corruptions"][name]
            mean, low, high = (100 * np.array(errors[key]) for key in ("mean", "low", "high"))
            label = network["name"] if place == 1 else ""
            axes.plot(levels, mean, label=label, markersize=3.5, **style.of_network(number))
            axes.fill_between(levels, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
        axes.set_xticks(levels, [f"{strength:g}" for strength in corruption.strengths])
        axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
