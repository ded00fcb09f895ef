"""The pictures of a comparison, each drawn from its numbers, for light and dark pages."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from torch import Tensor

# Okabe and Ito's colours, which the colour-blind can tell apart; a network also has a marker of its own.
COLOURS = {
    "light": ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#555555"],
    "dark": ["#56B4E9", "#E69F00", "#2FC79A", "#CC79A7", "#F0E442", "#BBBBBB"],
}
INK = {"light": "#1a1a1a", "dark": "#e8e8e8"}
PAPER = {"light": "#ffffff", "dark": "#16181c"}
MARKERS = "osD^vP"
WIDTH = 5.6  # inches: still readable at the width of a phone

Numbers = dict[str, Any]


def draw_all(numbers: Numbers, images_NHW: Tensor, theme: str) -> dict[str, bytes]:
    """Every picture as PNG, by its name.

    Args:
        numbers: What `numbers.collect` found.
        images_NHW: The test images, uint8.
        theme: "light" or "dark".
    """
    pictures: dict[str, Callable[[Numbers], Figure]] = {
        "errors": errors,
        "difference": difference,
        "confusion": confusion,
        "digits": digits,
        "hardest": lambda numbers: hardest(numbers, images_NHW),
        "accuracy": lambda numbers: curves(numbers, "accuracy"),
        "loss": lambda numbers: curves(numbers, "loss"),
        "robustness": robustness,
        "reliability": reliability,
    }
    ink, paper = INK[theme], PAPER[theme]
    style: Any = {
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), paper),
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink),
        "font.size": 10,
        "axes.titlesize": 11,
        "grid.color": ink,
        "grid.alpha": 0.15,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.framealpha": 0.8,
        "axes.prop_cycle": f"cycler('color', {COLOURS[theme]})",
        "figure.constrained_layout.use": True,
    }
    drawn = {}
    with rc_context(style):
        for name, draw in pictures.items():
            png = io.BytesIO()
            draw(numbers).savefig(png, format="png", dpi=160)
            drawn[name] = png.getvalue()
    return drawn


def errors(numbers: Numbers) -> Figure:
    """A mark for every run, the mean with its interval, and the published single run."""
    networks = numbers["networks"]
    figure = Figure(figsize=(WIDTH, 1.5 + 0.75 * len(networks)))
    axes = figure.add_subplot(xlabel=f"errors in {numbers['images']:,} test images", title="Errors of every run")
    for row, network in enumerate(networks):
        runs = np.array([run["errors"] for run in network["runs"]])
        # Equal runs are drawn side by side.
        offsets = np.array([(runs[:index] == value).sum() for index, value in enumerate(runs)])
        axes.plot(runs, row + 0.13 + 0.1 * offsets, MARKERS[row % 6], color=f"C{row % 6}", alpha=0.75, linestyle="none")
        mean = network["errors"]
        if mean["low"] is not None:
            axes.hlines(row - 0.12, mean["low"], mean["high"], color=f"C{row % 6}", linewidth=2)
        axes.plot(mean["mean"], row - 0.12, "|", color=f"C{row % 6}", markersize=14, markeredgewidth=3)
        if network["published_errors"] is not None:
            axes.plot(network["published_errors"], row + 0.13, "*", color=axes.yaxis.label.get_color(), markersize=10)
    ink = axes.yaxis.label.get_color()
    axes.plot([], [], "o", color=ink, alpha=0.75, label="a run")
    axes.plot([], [], "-|", color=ink, linewidth=2, label="mean, 95 % interval")
    axes.plot([], [], "*", color=ink, markersize=10, linestyle="none", label="published run")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.set_yticks(range(len(networks)), [_two_lines(network["name"]) for network in networks])
    axes.set_ylim(len(networks) - 0.4, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def difference(numbers: Numbers) -> Figure:
    """The difference of each pair with both intervals, the zero line, and what doesn't matter."""
    pairs, margin = numbers["pairs"], numbers["margin"]
    figure = Figure(figsize=(WIDTH, 2.0 + 0.7 * len(pairs)))
    images = f"{numbers['images']:,} test images"
    axes = figure.add_subplot(xlabel=f"difference of mean errors in {images}", title="Difference")
    axes.axvspan(
        -margin, margin, color=axes.yaxis.label.get_color(), alpha=0.08, label=f"up to {margin:g}: doesn't matter"
    )
    axes.axvline(0, color=axes.yaxis.label.get_color(), linewidth=1)
    for row, pair in enumerate(pairs):
        found = pair["difference"]
        for shift, name, colour, label in (
            (-0.1, "same_images", "C0", "other seeds"),
            (0.1, "other_images", "C1", "other seeds and test images"),
        ):
            if found[name] is not None:
                label = label if row == 0 else ""
                axes.hlines(
                    row + shift, found[name]["low"], found[name]["high"], color=colour, linewidth=3, label=label
                )
        axes.plot(found["mean"], row, "D", color=axes.yaxis.label.get_color())
    axes.set_yticks(range(len(pairs)), [f"{_two_lines(pair['a'])}\nminus\n{_two_lines(pair['b'])}" for pair in pairs])
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def confusion(numbers: Numbers) -> Figure:
    """Mean number of images of each class that a run takes for another."""
    networks, classes = numbers["networks"], numbers["classes"]
    figure = Figure(figsize=(WIDTH, 0.62 * WIDTH * -(-len(networks) // 2)))
    off_diagonal = [np.array(network["confusion"]) * (1 - np.eye(len(classes))) for network in networks]
    highest = max(matrix.max() for matrix in off_diagonal)
    for number, (network, matrix) in enumerate(zip(networks, off_diagonal, strict=True), start=1):
        axes = figure.add_subplot(
            -(-len(networks) // 2), 2, number, title=network["name"], xlabel="answer", ylabel="label"
        )
        paper, colour = axes.get_facecolor(), axes.plot([], [])[0].get_color()
        axes.imshow(matrix, LinearSegmentedColormap.from_list("", [paper, colour]), vmin=0, vmax=highest)
        for row, column in zip(*np.nonzero(matrix >= 0.05), strict=True):
            shade = axes.images[0].cmap(matrix[row, column] / max(highest, 1e-9))
            ink = "black" if np.dot(shade[:3], (0.3, 0.6, 0.1)) > 0.5 else "white"
            axes.text(column, row, f"{matrix[row, column]:.1f}", ha="center", va="center", fontsize=5.5, color=ink)
        axes.set_xticks(range(len(classes)), classes, rotation=_rotation(classes))
        axes.set_yticks(range(len(classes)), classes)
        axes.grid(visible=False)
    figure.suptitle("Errors of one run, on average", fontsize=11)
    return figure


def digits(numbers: Numbers) -> Figure:
    """Accuracy for each class, with the interval over seeds."""
    networks, classes = numbers["networks"], numbers["classes"]
    figure = Figure(figsize=(WIDTH, 3.4))
    axes = figure.add_subplot(title="Accuracy of each class", xlabel="label", ylabel="accuracy in %")
    for number, network in enumerate(networks):
        x = np.arange(len(classes)) + 0.5 * (number - (len(networks) - 1) / 2) / len(networks)
        mean = 100 * np.array([digit["mean"] for digit in network["digits"]])
        known = network["digits"][0]["low"] is not None
        reach = 100 * np.array([digit["high"] - digit["mean"] if known else 0 for digit in network["digits"]])
        axes.errorbar(x, mean, reach, fmt=MARKERS[number % 6], capsize=2, markersize=5, label=network["name"])
    axes.set_xticks(range(len(classes)), classes, rotation=_rotation(classes))
    axes.set_ylim(top=100.1)
    axes.legend()
    return figure


def hardest(numbers: Numbers, images_NHW: Tensor) -> Figure:
    """The images that most runs get wrong, with the label and each network's answer."""
    images, networks, classes, columns = numbers["hardest"], numbers["networks"], numbers["classes"], 6
    rows = max(1, -(-len(images) // columns))
    lines = 7 * len(networks)  # room for the answers, in pixels of the images
    figure = Figure(figsize=(WIDTH, WIDTH / columns * rows * (38 + lines) / 30 + 0.3 * len(networks)))
    for number, image in enumerate(images, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(255 - images_NHW[image["image"]].numpy(), cmap="gray", vmin=0, vmax=255)
        axes.set(xlim=(-1, 29), ylim=(29 + lines, -9))
        axes.set_axis_off()
        axes.text(14, -5, f"label {classes[image['label']]}", fontsize=8.5, ha="center", va="center")
        for row, answer in enumerate(image["answers"]):
            text = f"{classes[answer['digit']]}  {answer['confidence']:.0%}"
            axes.text(14, 32 + 7 * row, text, color=f"C{row % 6}", fontsize=8, ha="center", va="center", weight="bold")
    squares = [Patch(color=f"C{row % 6}", label=network["name"]) for row, network in enumerate(networks)]
    figure.legend(handles=squares, loc="outside lower center", ncols=2, frameon=False)
    return figure


def curves(numbers: Numbers, metric: str) -> Figure:
    """Training and validation over the epochs: mean of the runs, with the band from the lowest to the highest.

    The axis is fitted to the validation curves; training begins outside.
    """
    figure = Figure(figsize=(WIDTH, 3.8))
    axes = figure.add_subplot(title=metric.capitalize(), xlabel="epoch", ylabel=metric)
    for number, network in enumerate(numbers["networks"]):
        for name, line in (("train", ".--"), ("validation", ".-")):
            curve, colour = network["curves"][metric][name], f"C{number % 6}"
            axes.plot(curve["epoch"], curve["mean"], line, color=colour, label=f"{network['name']}, {name}")
            axes.fill_between(curve["epoch"], curve["low"], curve["high"], color=colour, alpha=0.2, linewidth=0)
    validation = [network["curves"][metric]["validation"] for network in numbers["networks"]]
    seen = [value for curve in validation for value in curve["low"] + curve["high"]]
    if len(seen) > 2 and metric == "loss":
        axes.set_ylim(0, 1.2 * max(seen))
    elif len(seen) > 2:
        axes.set_ylim(1 - 1.3 * (1 - min(seen)), 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=9)
    return figure


def robustness(numbers: Numbers) -> Figure:
    """Errors under each corruption, over its strength: mean of the runs, with the band from lowest to highest."""
    networks = numbers["networks"]
    names = list(networks[0]["robustness"]["corruptions"])
    figure = Figure(figsize=(WIDTH, 1.75 * -(-len(names) // 2) + 0.4))
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(-(-len(names) // 2), 2, place, title=name)
        axes.set_xlabel(networks[0]["robustness"]["corruptions"][name]["unit"], fontsize=9)
        axes.set_ylabel("errors in %", fontsize=9)
        for number, network in enumerate(networks):
            found = network["robustness"]["corruptions"][name]
            mean, low, high = (100 * np.array(found[key]) for key in ("mean", "low", "high"))
            style: Any = {"color": f"C{number % 6}", "marker": MARKERS[number % 6], "markersize": 3.5}
            axes.plot(range(len(mean)), mean, label=network["name"] if place == 1 else "", **style)
            axes.fill_between(range(len(mean)), low, high, color=f"C{number % 6}", alpha=0.2, linewidth=0)
            axes.set_xticks(range(len(mean)), [f"{strength:g}" for strength in found["strengths"]])
        axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def reliability(numbers: Numbers) -> Figure:
    """How often an answer of some confidence is right, and how many answers have it."""
    figure = Figure(figsize=(WIDTH, 4.6))
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 1], [0, 1], ":", color=axes.yaxis.label.get_color(), linewidth=1, label="as often as it says")
    for number, network in enumerate(numbers["networks"]):
        images, right = (np.array(network["reliability"][key]) for key in ("counts", "right"))
        middle = (np.arange(len(images)) + 0.5) / len(images)
        enough = images >= 5  # a share of fewer is noise
        style: Any = {"color": f"C{number % 6}", "marker": MARKERS[number % 6], "markersize": 4}
        axes.plot(middle[enough], right[enough] / images[enough], label=network["name"], **style)
        shift = (number - (len(numbers["networks"]) - 1) / 2) * 0.025
        counts.bar(middle + shift, images, width=0.025, color=f"C{number % 6}")
    axes.set(title="Reliability", ylabel="share of right answers")
    counts.set(yscale="log", xlabel="confidence", ylabel="images")
    axes.legend()
    return figure


def _two_lines(name: str) -> str:
    return name.replace(" (", "\n(")


def _rotation(names: list[str]) -> int:
    return 90 if max(map(len, names)) > 1 else 0
