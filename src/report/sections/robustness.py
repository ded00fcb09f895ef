"""Errors on corrupted images."""

import numpy as np
import torch
from matplotlib.figure import Figure

from src.comparison.result import Comparison, Network
from src.comparison.statistics import summary
from src.evaluation.corruptions import CORRUPTIONS, choose_images
from src.report import style
from src.report.section import Figures, Numbers, Section, band


class Robustness(Section):
    """Adds the errors under each corruption."""

    def of_network(self, network: Network) -> Numbers:
        errors_SCS = network.robustness_SCS
        found = {
            name: {"unit": corruption.unit, "strengths": list(corruption.strengths)} | band(errors_SCS[:, row])
            for row, (name, corruption) in enumerate(CORRUPTIONS.items())
        }
        return {"robustness": {"corruptions": found, "overall": summary(errors_SCS.mean(axis=(1, 2)))}}

    def of_report(self, comparison: Comparison) -> Numbers:
        return {"robustness_images": len(choose_images(torch.from_numpy(comparison.labels_N)))}

    def figures(self) -> Figures:
        return {"robustness": draw}


def draw(report: Numbers, comparison: Comparison) -> Figure:
    """Draw the errors over the strength of each corruption: mean of the runs, with the band from lowest to highest."""
    networks = report["networks"]
    rows = -(-len(CORRUPTIONS) // 2)
    figure = Figure(figsize=(style.WIDTH, 1.75 * rows + 0.4))
    for place, (name, corruption) in enumerate(CORRUPTIONS.items(), start=1):
        axes = figure.add_subplot(rows, 2, place, title=name)
        axes.set_xlabel(corruption.unit, fontsize=9)
        axes.set_ylabel("Errors in %", fontsize=9)
        steps = range(len(corruption.strengths))
        for number, network in enumerate(networks):
            found = network["robustness"]["corruptions"][name]
            mean, low, high = (100 * np.array(found[key]) for key in ("mean", "low", "high"))
            label = network["name"] if place == 1 else ""
            axes.plot(steps, mean, label=label, markersize=3.5, **style.of_network(number))
            axes.fill_between(steps, low, high, color=f"C{number % 6}", alpha=0.2, linewidth=0)
        axes.set_xticks(steps, [f"{strength:g}" for strength in corruption.strengths])
        axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure
