"""Draw accuracy over training time: published recipe, fast recipe, Keras: `python -m benchmarks.over_time`.

Time is counted in epochs of `fit` with the published recipe, so that it holds on any machine: how much longer
or shorter an epoch of the others takes is read from docs/benchmarks.json (`make bench`, with Keras). The accuracies
are those of docs/comparison.json and docs/fast.json, reports of `compare`, and of one Keras run for each network,
which is trained here and kept in docs/keras.json.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.__main__ import FAST, KERAS, KERAS_ONE_THREAD, KERAS_PROGRAM, TITLES

DOCS = Path("docs")
EPOCHS = {"lenet5": 30, "cnn": 12}


def read(name: str) -> dict[str, Any]:
    if not (DOCS / name).exists():
        raise SystemExit(f"{DOCS / name} is missing.\n\n{__doc__}")
    return json.loads((DOCS / name).read_text())


def keras_accuracies() -> dict[str, list[float]]:
    """The test accuracy after each epoch of the published program, one run."""
    kept = DOCS / "keras.json"
    if not kept.exists():
        accuracies = {}
        for network, epochs in EPOCHS.items():
            command = [str(KERAS), "benchmarks/keras_program.py", network, "data", str(epochs)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            accuracies[network] = json.loads(output.splitlines()[-1])
        kept.write_text(f"{json.dumps(accuracies, indent=2)}\n")
    return json.loads(kept.read_text())


def draw() -> Figure:
    ratios, keras = read("benchmarks.json")["networks"], keras_accuracies()
    reports = {"published recipe": read("comparison.json"), "fast recipe": read("fast.json")}
    keras_ratio = f"epoch: fit / {KERAS_ONE_THREAD}"
    if any(keras_ratio not in ratios.get(network, {}) for network in TITLES):
        raise SystemExit(f"{DOCS / 'benchmarks.json'} lacks figures of Keras.\n\n{__doc__}")
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (network, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        an_epoch = {
            "published recipe": 1.0,
            "fast recipe": 1 / ratios[network][f"epoch: fit / {FAST}"]["ratio"],
            KERAS_PROGRAM: 1 / ratios[network][keras_ratio]["ratio"],
        }
        for recipe, report in reports.items():
            (found,) = [one for one in report["networks"] if one["name"] == title]
            curve = found["curves"]["accuracy"]["validation"]
            times = [epoch * an_epoch[recipe] for epoch in curve["epoch"]]
            axes.plot(
                times, curve["mean"], marker="o", markersize=3, label=f"{recipe}, mean of {len(found['runs'])} runs"
            )
            axes.fill_between(times, curve["low"], curve["high"], alpha=0.2)
        times = [epoch * an_epoch[KERAS_PROGRAM] for epoch in range(1, len(keras[network]) + 1)]
        axes.plot(times, keras[network], marker="o", markersize=3, label=f"{KERAS_PROGRAM}, 1 run")
        axes.set(title=title, xlabel="training time, in epochs of fit", ylabel="test accuracy", ylim=(0.97, 0.996))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    draw().savefig(DOCS / "over_time.png", dpi=120)
    print(f"Picture: {DOCS / 'over_time.png'}")
