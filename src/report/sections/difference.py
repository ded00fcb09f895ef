"""The errors of every run, and the difference of each pair of networks with its intervals."""

from dataclasses import asdict

import numpy as np
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.comparison import statistics
from src.comparison.result import Comparison, Network, Pair
from src.comparison.words import sentences
from src.report import style
from src.report.section import Figures, Numbers, Section

# The published comparison, one run of each: epochs and errors in the 10,000 test images.
PUBLISHED = {"LeNet5": (30, 77), "CNN": (12, 84)}


class Difference(Section):
    """Adds runs, intervals, power, and the verdict in words."""

    def of_network(self, network: Network) -> Numbers:
        epochs, published = PUBLISHED.get(network.results[0]["model"], (0, None))
        as_published = epochs == network.epochs and "data.classes" not in network.recipe
        return {
            "parameters": network.results[0]["parameters"],
            "epochs": network.epochs,
            "dropout": network.has_dropout,
            "runs": [
                {
                    "folder": str(run.folder),
                    "seed": run.results["seed"],
                    "errors": int(errors),
                    "threads": run.results.get("machine", {}).get("threads"),
                }
                for run, errors in zip(network.runs, network.errors_S, strict=True)
            ],
            "errors": statistics.summary(network.errors_S),
            "published_errors": published if as_published else None,
        }

    def of_pair(self, pair: Pair, comparison: Comparison) -> Numbers:
        difference, n_networks = pair.difference, len(comparison.networks)
        fewer, more = (pair.a, pair.b) if difference.mean <= 0 else (pair.b, pair.a)
        power = None
        if difference.over_seeds is not None:
            spreads = (float(pair.a.errors_S.std(ddof=1)), float(pair.b.errors_S.std(ddof=1)))
            n_runs = (len(pair.a.runs), len(pair.b.runs))
            power = {
                "smallest_difference": statistics.smallest_difference(spreads, n_runs, n_networks),
                "runs_needed": {
                    str(n_images): statistics.runs_needed(n_images, spreads, n_networks)
                    for n_images in statistics.DIFFERENCES_OF_INTEREST
                },
            }
        return {
            "a": pair.a.name,
            "b": pair.b.name,
            "fewer_errors": fewer.name,
            "difference": asdict(difference),
            "verdict": pair.verdict,
            "single_runs_agree": statistics.single_runs_agree(fewer.errors_S, more.errors_S),
            "mcnemar": pair.mcnemar,
            "misleading_pairs": statistics.misleading_pairs(pair.a.wrong_SN, pair.b.wrong_SN),
            "power": power,
            "words": sentences(pair),
        }

    def figures(self) -> Figures:
        return {"errors": draw_errors, "difference": draw_difference}


def draw_errors(report: Numbers, comparison: Comparison) -> Figure:
    """Draw a mark for every run, the mean with its interval, and the published single run."""
    networks, ink = report["networks"], rcParams["text.color"]
    figure = Figure(figsize=(style.WIDTH, 1.5 + 0.6 * len(networks)))
    axes = figure.add_subplot(xlabel=f"Errors in {report['images']:,} test images", title="Errors of every run")
    for row, network in enumerate(networks):
        runs = np.array([run["errors"] for run in network["runs"]])
        # Runs with equal errors are drawn one below the other.
        offsets = np.array([(runs[:index] == value).sum() for index, value in enumerate(runs)])
        axes.plot(runs, row + 0.13 + 0.1 * offsets, alpha=0.75, linestyle="none", **style.of_network(row))
        mean, colour = network["errors"], f"C{row % 6}"
        if mean["low"] is not None:
            axes.hlines(row - 0.12, mean["low"], mean["high"], color=colour, linewidth=2)
        axes.plot(mean["mean"], row - 0.12, "|", color=colour, markersize=14, markeredgewidth=3)
        if network["published_errors"] is not None:
            axes.plot(network["published_errors"], row + 0.13, "*", color=ink, markersize=10)
    axes.plot([], [], "o", color=ink, alpha=0.75, label="a run")
    axes.plot([], [], "-|", color=ink, linewidth=2, label="mean, 95 % interval")
    axes.plot([], [], "*", color=ink, markersize=10, linestyle="none", label="published run")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.set_yticks(range(len(networks)), [_two_lines(network["name"]) for network in networks])
    axes.set_ylim(len(networks) - 0.4, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def draw_difference(report: Numbers, comparison: Comparison) -> Figure:
    """Draw the difference of each pair with both intervals, zero, and the differences that don't matter."""
    pairs, margin, ink = report["pairs"], report["margin"], rcParams["text.color"]
    figure = Figure(figsize=(style.WIDTH, 2.0 + 0.7 * len(pairs)))
    xlabel = f"Difference of mean errors in {report['images']:,} test images"
    axes = figure.add_subplot(xlabel=xlabel, title="Difference")
    axes.axvspan(-margin, margin, color=ink, alpha=0.08, label=f"up to {margin:g}: doesn't matter")
    axes.axvline(0, color=ink, linewidth=1)
    for key, label, colour, shift in (
        ("over_seeds", "over seeds", "C0", -0.1),
        ("over_seeds_and_images", "over seeds and test images", "C1", 0.1),
    ):
        known = [(row, pair["difference"][key]) for row, pair in enumerate(pairs) if pair["difference"][key]]
        low, high = ([interval[end] for _, interval in known] for end in ("low", "high"))
        label = label if known else ""
        axes.hlines([row + shift for row, _ in known], low, high, color=colour, linewidth=3, label=label)
    axes.plot([pair["difference"]["mean"] for pair in pairs], range(len(pairs)), "D", color=ink)
    axes.set_yticks(range(len(pairs)), [f"{_two_lines(pair['a'])}\nminus\n{_two_lines(pair['b'])}" for pair in pairs])
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _two_lines(name: str) -> str:
    return name.replace(" (", "\n(")
