"""Whether `fit` trains like the published Keras program: `python -m benchmarks.reproduction [--runs 10 5] [--jobs 2]`.

For each seed in turn: the Keras program, `fit` with pixels in 0…1 as published, and `fit` with normalised pixels, on
one thread each. The test errors after each epoch are kept in docs/reproduction.json after each run. Stop it whenever
you like: the same command trains the missing runs. All of it takes hours. At the end it prints the verdicts, and draws
docs/reproduction.png. It needs .venv-keras (`make bench` builds it).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.__main__ import KERAS, KERAS_PROGRAM, OF_KERAS, TITLES
from src.comparison.sentences import headline
from src.comparison.statistics import Difference, intervals_over_seeds
from src.data import MNISTDataModule
from src.system.files import write_whole
from src.system.machine import cpu_cores

KEPT = Path("docs", "reproduction.json")
PUBLISHED, NORMALISED = "fit as published", "fit, normalised"
CONTENDERS = (KERAS_PROGRAM, PUBLISHED, NORMALISED)
PAIRS = ((PUBLISHED, KERAS_PROGRAM), (NORMALISED, PUBLISHED))
EPOCHS = {"lenet5": 30, "cnn": 12}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
IMAGES = 10_000  # of the test
MARGIN, LAST_EPOCHS = 10, 5

Run = tuple[str, str, int]  # network, contender, seed


def train(run: Run) -> list[int]:
    """Returns: the errors in the test images after each epoch."""
    network, contender, seed = run
    with tempfile.TemporaryDirectory() as folder:
        if contender == KERAS_PROGRAM:
            command = [*OF_KERAS, network, "data", str(EPOCHS[network]), str(seed)]
        else:
            command = [sys.executable, "-m", "src", "fit", f"--config=configs/{network}.yaml"]
            command += ["--config=configs/published.yaml"] if contender == PUBLISHED else []
            command += [f"--seed_everything={seed}", f"--trainer.default_root_dir={folder}"]
            command += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | ONE_THREAD)
        if ended.returncode:
            raise SystemExit(f"{' '.join(command)} has failed:\n{ended.stderr[-3000:]}")
        if contender == KERAS_PROGRAM:
            accuracies = json.loads(ended.stdout.splitlines()[-1])
        else:
            (results,) = Path(folder).rglob("results.json")
            accuracies = json.loads(results.read_text())["curves"]["accuracy"]["validation"].values()
    return [round(IMAGES * (1 - accuracy)) for accuracy in accuracies]


def train_missing(kept: dict[str, Any], n_runs: dict[str, int], jobs: int) -> None:
    """Runs are kept as network → contender → seed → errors after each epoch."""
    runs = [
        (network, contender, seed)
        for seed in range(max(n_runs.values()))
        for network in EPOCHS
        for contender in CONTENDERS
        if seed < n_runs[network] and str(seed) not in kept.get(network, {}).get(contender, {})
    ]
    if runs and not KERAS.exists():
        raise SystemExit(f"{KERAS} is missing.\n\n{__doc__}")
    MNISTDataModule().prepare_data()  # the Keras program reads the files
    pool = ThreadPoolExecutor(jobs)
    try:
        started = {pool.submit(train, run): run for run in runs}
        for future in tqdm(as_completed(started), total=len(runs), unit=" runs"):
            network, contender, seed = started[future]
            errors = future.result()
            kept.setdefault(network, {}).setdefault(contender, {})[str(seed)] = errors
            write_whole(KEPT, f"{json.dumps(kept)}\n".encode())
            tqdm.write(f"{TITLES[network]}, {contender}, seed {seed}: {errors[-1]} errors")
    finally:
        pool.shutdown(cancel_futures=True)


def measures(runs: dict[str, list[int]]) -> dict[str, np.ndarray]:
    errors_RE = np.array(list(runs.values()))
    return {"last epoch": errors_RE[:, -1], f"last {LAST_EPOCHS} epochs": errors_RE[:, -LAST_EPOCHS:].mean(axis=1)}


def figures(contenders: dict[str, dict[str, list[int]]]) -> Iterator[str]:
    for name, runs in contenders.items():
        for measure, errors_R in measures(runs).items():
            each = f", {', '.join(map(str, errors_R))}" if measure == "last epoch" else ""
            yield f"{name}, {measure}: {errors_R.mean():.1f} ± {errors_R.std(ddof=1):.1f} errors{each}"


def verdicts(one: str, other: str, its_runs: dict[str, list[int]], others: dict[str, list[int]]) -> Iterator[str]:
    found = measures(others)
    for measure, a in measures(its_runs).items():
        b = found[measure]
        interval = intervals_over_seeds([a, b])[0, 1]
        difference = Difference(float(a.mean() - b.mean()), interval, None)
        yield (
            f"{measure}: {headline(one, other, difference, MARGIN, IMAGES)} {difference.mean:+.1f} "
            f"({interval.low:+.1f} to {interval.high:+.1f})"
            if interval
            else f"{measure}: the spread between seeds is not known."
        )


def draw(kept: dict[str, Any]) -> Figure:
    """Every run: errors over the epochs, and after the last."""
    figure = Figure(figsize=(10, 3.5 * len(kept)), layout="constrained")
    rows = figure.subplots(len(kept), 2, squeeze=False, width_ratios=(3, 2))
    for network, (over_epochs, last) in zip(kept, rows, strict=True):
        for place, contender in enumerate(CONTENDERS):
            errors_RE = np.array(list(kept[network][contender].values()))
            epochs = np.arange(1, errors_RE.shape[1] + 1)
            over_epochs.plot(epochs, errors_RE.T, color=f"C{place}", alpha=0.3, linewidth=0.8)
            over_epochs.plot(
                epochs, errors_RE.mean(axis=0), color=f"C{place}", label=f"{contender}, mean of {len(errors_RE)} runs"
            )
            offsets = np.linspace(-0.2, 0.2, len(errors_RE))
            last.plot(place + offsets, errors_RE[:, -1], "o", color=f"C{place}", alpha=0.6)
            last.hlines(errors_RE[:, -1].mean(), place - 0.3, place + 0.3, color=f"C{place}")
        over_epochs.set(title=TITLES[network], xlabel="epoch", ylim=(0, 250))
        over_epochs.set_ylabel(f"errors in {IMAGES:,} test images")
        over_epochs.legend()
        last.margins(y=0.1)
        last.set(title="after the last epoch", ylim=(0, None))
        last.set_xticks(range(len(CONTENDERS)), [name.replace(" ", "\n", 1) for name in CONTENDERS])
        for axes in (over_epochs, last):
            axes.grid(alpha=0.3)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs=2, type=int, default=[10, 5], help="of LeNet5 and of CNN, for each contender")
    parser.add_argument("--jobs", type=int, default=cpu_cores(), help="runs at a time")
    args = parser.parse_args()
    kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    train_missing(kept, dict(zip(EPOCHS, args.runs, strict=True)), args.jobs)
    for network, found in kept.items():
        pairs = [line for one, other in PAIRS for line in verdicts(one, other, found[one], found[other])]
        print(f"\n{TITLES[network]}", *figures(found), *pairs, sep="\n  ")
    one, other = EPOCHS
    for name in CONTENDERS:
        between = verdicts(TITLES[one], TITLES[other], kept[one][name], kept[other][name])
        print(f"\n{name}", *between, sep="\n  ")
    draw(kept).savefig(KEPT.with_suffix(".png"), dpi=120)
    print(f"\nPicture: {KEPT.with_suffix('.png')}")


if __name__ == "__main__":
    main()
