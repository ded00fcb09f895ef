"""Errors on corrupted images, if the runs were tested on them."""

import numpy as np
import torch
from matplotlib.figure import Figure

from src.comparison.corruptions import CORRUPTIONS, choose_images
from src.comparison.result import Comparison, Contender
from src.comparison.statistics import summary
from src.report import style
from src.report.section import Figures, Numbers, Section, band


class Robustness(Section):
    """Adds the errors under each corruption."""

    def of_contender(self, contender: Contender) -> Numbers:
        rates_SCL = contender.robustness_SCL
        if rates_SCL is None:
            return {"robustness": None}
        corruptions = {
            name: {"unit": corruption.unit, "strengths": list(corruption.strengths)} | band(rates_SCL[:, row])
            for row, (name, corruption) in enumerate(CORRUPTIONS.items())
        }
        return {"robustness": {"corruptions": corruptions, "overall": summary(rates_SCL.mean(axis=(1, 2)))}}

    def of_comparison(self, comparison: Comparison) -> Numbers:
        return {"robustness_images": len(choose_images(torch.from_numpy(comparison.labels_N)))}

    def figures(self, numbers: Numbers) -> Figures:
        return {"robustness": draw} if numbers["networks"][0]["robustness"] else {}


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
