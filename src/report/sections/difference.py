"""The errors of every run, and the difference of each pair of networks with its intervals."""

from dataclasses import asdict

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from src.comparison import statistics
from src.comparison.result import Comparison, Contender, Pair
from src.comparison.sentences import sentences
from src.report import style
from src.report.sections import Numbers

# The published comparison, one run of each: epochs and errors in the 10,000 test images.
PUBLISHED = {"LeNet5": (30, 77), "CNN": (12, 84)}


def of_contender(contender: Contender) -> Numbers:
    """Return the runs of a network with their errors, and the errors of its published run."""
    epochs, published = PUBLISHED.get(contender.results[0]["model"], (0, None))
    as_published = epochs == contender.epochs and "data.classes" not in contender.recipe
    return {
        "parameters": contender.results[0]["parameters"],
        "epochs": contender.epochs,
        "runs": [
            {
                "folder": str(run.folder),
                "seed": run.results["seed"],
                "errors": int(errors),
                "threads": run.results.get("machine", {}).get("threads"),
            }
            for run, errors in zip(contender.runs, contender.errors_S, strict=True)
        ],
        "errors": statistics.summary(contender.errors_S),
        "published_errors": published if as_published else None,
    }


def of_pair(pair: Pair, n_networks: int) -> Numbers:
    """Return the difference of two of several networks, how sure it is, and the verdict in sentences."""
    difference = pair.difference
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
        "difference": asdict(difference),
        "verdict": pair.verdict,
        "single_runs_agree": statistics.single_runs_agree(pair.a.errors_S, pair.b.errors_S),
        "mcnemar": pair.mcnemar,
        "misleading_pairs": statistics.misleading_pairs(pair.a.wrong_SN, pair.b.wrong_SN),
        "power": power,
        "verdict_sentences": sentences(pair),
    }


def draw_errors(numbers: Numbers, comparison: Comparison) -> Figure:
    """Draw a mark for every run, the mean with its interval, and the published single run."""
    networks = numbers["networks"]
    figure = Figure(figsize=(style.WIDTH, 1.5 + (0.6 if len(networks) <= style.SHOWN else 0.4) * len(networks)))
    axes = figure.add_subplot(xlabel=f"Errors in {numbers['images']:,} test images", title="Errors of every run")
    for row, network in enumerate(networks):
        runs = np.array([run["errors"] for run in network["runs"]])
        # Runs with equal errors are drawn one below the other.
        offsets = np.array([(runs[:index] == value).sum() for index, value in enumerate(runs)])
        axes.plot(runs, row + 0.13 + 0.1 * offsets, alpha=0.75, linestyle="none", **style.of_network(row))
        mean, colour = network["errors"], style.of_network(row)["color"]
        if mean["low"] is not None:
            axes.hlines(row - 0.12, mean["low"], mean["high"], color=colour, linewidth=2)
        axes.plot(mean["mean"], row - 0.12, "|", color=colour, markersize=14, markeredgewidth=3)
        if network["published_errors"] is not None:
            axes.plot(network["published_errors"], row + 0.13, "*", color="black", markersize=10)
    axes.plot([], [], "o", color="black", alpha=0.75, label="a run")
    axes.plot([], [], "-|", color="black", linewidth=2, label="mean, 95 % interval")
    axes.plot([], [], "*", color="black", markersize=10, linestyle="none", label="published run")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.set_yticks(range(len(networks)), [_two_lines(network["name"]) for network in networks])
    axes.set_ylim(len(networks) - 0.4, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def draw_difference(numbers: Numbers, comparison: Comparison) -> Figure:
    """Draw the difference of each pair with both intervals, zero, and the differences that don't matter."""
    pairs, margin = numbers["pairs"], numbers["margin"]
    labels = [_two_lines(pair["b"]) for pair in pairs]
    title = f"{pairs[0]['a']} minus each other network"
    if comparison.shows_all_pairs:
        labels = [f"{_two_lines(pair['a'])}\nminus\n{label}" for pair, label in zip(pairs, labels, strict=True)]
        title = "Difference"
    row_height = 0.2 + 0.17 * max(len(label.splitlines()) for label in labels)  # inches
    figure = Figure(figsize=(style.WIDTH, 2.0 + row_height * len(pairs)))
    xlabel = f"Difference of mean errors in {numbers['images']:,} test images"
    axes = figure.add_subplot(xlabel=xlabel, title=title)
    axes.axvspan(-margin, margin, color="black", alpha=0.08, label=f"up to {margin:g}: doesn't matter")
    axes.axvline(0, color="black", linewidth=1)
    for key, label, colour, shift in (
        ("over_seeds", "over seeds", "C0", -0.1),
        ("over_seeds_and_images", "over seeds and test images", "C1", 0.1),
    ):
        known = [(row, pair["difference"][key]) for row, pair in enumerate(pairs) if pair["difference"][key]]
        low, high = ([interval[end] for _, interval in known] for end in ("low", "high"))
        label = label if known else ""
        axes.hlines([row + shift for row, _ in known], low, high, color=colour, linewidth=3, label=label)
    axes.plot([pair["difference"]["mean"] for pair in pairs], range(len(pairs)), "D", color="black")
    axes.set_yticks(range(len(pairs)), labels)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _two_lines(name: str) -> str:
    return name.replace(" (", "\n(")
