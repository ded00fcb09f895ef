"""Draw accuracy over training time: default recipe, fast recipe, Keras: `python -m benchmarks.over_time`.

Time is counted in epochs of `fit` with the default recipe, so that it holds on any machine: how much longer
or shorter an epoch of the others takes is read from docs/benchmarks.json (`make bench`, with Keras). The accuracies
are those of docs/comparison.json and docs/fast.json, reports of `compare`, and of the Keras runs in
docs/reproduction.json (`python -m benchmarks.reproduction`).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.__main__ import FAST, KERAS_ONE_THREAD, KERAS_PROGRAM, TITLES

DOCS = Path("docs")
EPOCHS, FAST_EPOCHS = {"lenet5": 30, "cnn": 12}, 2
IMAGES = 10_000  # of the test


def read(name: str) -> dict[str, Any]:
    if not (DOCS / name).exists():
        raise SystemExit(f"{DOCS / name} is missing.\n\n{__doc__}")
    return json.loads((DOCS / name).read_text())


def lengths_of_epochs(network: str) -> dict[str, float]:
    """The time of an epoch of each contender, in epochs of `fit` with the default recipe."""
    ratios = read("benchmarks.json")["networks"].get(network, {})
    keras_ratio = f"epoch: fit / {KERAS_ONE_THREAD}"
    if keras_ratio not in ratios:
        raise SystemExit(f"{DOCS / 'benchmarks.json'} lacks figures of Keras.\n\n{__doc__}")
    return {
        "default recipe": 1.0,
        "fast recipe": 1 / ratios[f"epoch: fit / {FAST}"]["ratio"],
        KERAS_PROGRAM: 1 / ratios[keras_ratio]["ratio"],
    }


def draw() -> Figure:
    trained = read("reproduction.json")
    reports = {"default recipe": read("comparison.json"), "fast recipe": read("fast.json")}
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (network, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        an_epoch = lengths_of_epochs(network)
        for recipe, report in reports.items():
            (found,) = [one for one in report["networks"] if one["name"] == title]
            curve = found["curves"]["accuracy"]["validation"]
            times = [epoch * an_epoch[recipe] for epoch in curve["epoch"]]
            label = f"{recipe}, mean of {len(found['runs'])} runs"
            axes.plot(times, curve["mean"], marker="o", markersize=3, label=label)
            axes.fill_between(times, curve["low"], curve["high"], alpha=0.2)
        keras_RE = 1 - np.array(list(trained[network][KERAS_PROGRAM].values())) / IMAGES
        times = [epoch * an_epoch[KERAS_PROGRAM] for epoch in range(1, 1 + EPOCHS[network])]
        label = f"{KERAS_PROGRAM}, mean of {len(keras_RE)} runs"
        axes.plot(times, keras_RE.mean(axis=0), marker="o", markersize=3, label=label)
        axes.fill_between(times, keras_RE.min(axis=0), keras_RE.max(axis=0), alpha=0.2)
        axes.set(title=title, xlabel="training time, in epochs of fit", ylabel="test accuracy", ylim=(0.97, 0.996))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    for network, title in TITLES.items():
        an_epoch = lengths_of_epochs(network)
        ratio = EPOCHS[network] * an_epoch[KERAS_PROGRAM] / (FAST_EPOCHS * an_epoch["fast recipe"])
        print(f"{title}: the {KERAS_PROGRAM} takes {ratio:.1f} times as long as the fast recipe.")
    draw().savefig(DOCS / "over_time.png", dpi=120)
    print(f"Picture: {DOCS / 'over_time.png'}")
