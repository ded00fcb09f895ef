"""Compare the speed of `fit` with that of others: `python -m benchmarks [NETWORK …] [--blocks 30]`.

Each contender is a process of its own, and they take turns in blocks of work (see `contenders.py`), so
that a machine that is busy with other things slows all of them. A figure is the median of the ratios of
neighbouring blocks, with its 95 % interval (bootstrap); against the hand-written loop it is the mean of such medians
from five pairs of processes (t interval). Writes docs/benchmarks.json and docs/benchmarks.png.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import bootstrap, sem, t
from tqdm import tqdm

from benchmarks.contenders import TRAIN_STEPS, VAL_STEPS, multiply_adds
from src.system.machine import describe_machine

KERAS = Path(".venv-keras", "bin", "python")
WARM_UP = 2  # blocks
PAIRS = 5  # of processes, for a difference of a few per cent
TIMES = {"lenet5": 9, "cnn": 3}  # as many steps in these blocks: in short ones, what is done once an epoch weighs more
FIT, HAND_WRITTEN, USUAL_0, USUAL_2 = "fit", "hand-written loop", "usual pipeline", "usual pipeline, 2 workers"
KERAS_PROGRAM, PRODUCT = "published Keras program", "matrix product"
SHIFTS, FAST = "fit with shifted images", "fit with the fast recipe"
LOOP, START_UP = "loop", "start_up"
KERAS_ONE_THREAD = f"{KERAS_PROGRAM}, one thread each"
OURS = [sys.executable, "-m", "benchmarks.contenders"]
TITLES = {"lenet5": "LeNet5", "cnn": "CNN"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


class Contender:
    """A process that does one block when it is its turn. What it prints goes to a log."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self.log = log
        reports, its_end = os.pipe()
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[its_end],
                env=os.environ | {"REPORTS": str(its_end)} | environment,
            )
        os.close(its_end)
        self.reports = os.fdopen(reports)
        self.peak_memory = 0
        self._report()

    def block(self) -> float:
        """Returns: its seconds."""
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self._report()

    def _report(self) -> float:
        if not (line := self.reports.readline()):
            raise SystemExit(f"{' '.join(self.process.args)} has ended:\n{self.log.read_text()[-3000:]}")  # type: ignore[arg-type]
        report = json.loads(line)
        self.peak_memory = report["peak_memory"]
        return report["seconds"]

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def median(ratios: list[float]) -> dict[str, Any]:
    low, high = bootstrap((ratios,), np.median, rng=0).confidence_interval
    return {"ratio": float(np.median(ratios)), "low": float(low), "high": float(high), "blocks": len(ratios)}


def take_turns(contenders: dict[str, Contender], rounds: int, title: str) -> dict[str, list[dict[str, float]]]:
    """Seconds of the blocks of each round, of the first contender and each other; ends them."""
    names = list(contenders)
    for contender in contenders.values():
        for _ in range(WARM_UP):
            contender.block()
    seconds: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in tqdm(range(rounds), desc=title, unit=" rounds"):
        # In turn from either end, so that none always follows the same.
        took = {name: contenders[name].block() for name in (names if number % 2 else reversed(names))}
        for name in names[1:]:
            seconds[name].append({"fit": took[names[0]], "other": took[name]})
    for contender in contenders.values():
        contender.end()
    return seconds


def keras_command(network: str) -> list[str]:
    return [str(KERAS), "benchmarks/keras_program.py", network, "data"]


def race(network: str, rounds: int, logs: Path) -> dict[str, Any]:
    commands = {
        FIT: [*OURS, "fit", network],
        USUAL_0: [*OURS, "usual", network, "0"],
        USUAL_2: [*OURS, "usual", network, "2"],
        SHIFTS: [*OURS, "fit", network, "--data.max_shift=2"],
        FAST: [*OURS, "fit", f"{network}-fast"],
        PRODUCT: [*OURS, "matrix_product", network],
    }
    if KERAS.exists():
        commands[KERAS_PROGRAM] = keras_command(network)
    else:
        print("Keras is left out: there is no .venv-keras (`make bench` builds it where tensorflow-cpu can be had).")
    contenders = {name: Contender(command, logs / f"{network}-{name}.log") for name, command in commands.items()}
    seconds = take_turns(contenders, rounds, TITLES[network])
    work = multiply_adds(network)
    product_work = max(1, round(work / 2048**3)) * 2048**3
    result = {
        f"epoch: fit / {name}": median([pair["fit"] / pair["other"] for pair in pairs])
        for name, pairs in seconds.items()
        if name != PRODUCT
    }
    rates = [(work / pair["fit"]) / (product_work / pair["other"]) for pair in seconds[PRODUCT]]
    return result | {"rate of multiply-adds: fit / matrix product": median(rates)}


def limits(network: str) -> list[str]:
    steps = (("train", TRAIN_STEPS), ("val", VAL_STEPS))
    return [f"--trainer.limit_{part}_batches={TIMES[network] * number}" for part, number in steps]


def against_hand_written(network: str, rounds: int, logs: Path) -> dict[str, Any]:
    """In pairs of new processes: within a pair the ratios agree, from pair to pair they differ by some per cent."""
    train_steps, val_steps = (str(TIMES[network] * steps) for steps in (TRAIN_STEPS, VAL_STEPS))
    commands = {
        FIT: [*OURS, "fit", network, *limits(network)],
        HAND_WRITTEN: [*OURS, "hand_written", network, train_steps, val_steps],
    }
    ratios, memory = [], []
    for number in range(PAIRS):
        contenders = {name: Contender(command, logs / f"{network}-{name}.log") for name, command in commands.items()}
        title = f"{TITLES[network]}, pair {number + 1} of {PAIRS}"
        pairs = take_turns(contenders, -(-rounds // PAIRS), title)[HAND_WRITTEN]
        ratios.append(float(np.median([pair["fit"] / pair["other"] for pair in pairs])))
        memory.append(contenders[FIT].peak_memory / contenders[HAND_WRITTEN].peak_memory)
    low, high = t.interval(0.95, PAIRS - 1, np.mean(ratios), sem(ratios))
    epoch = {"ratio": float(np.mean(ratios)), "low": low, "high": high, "blocks": len(pairs) * PAIRS, "pairs": ratios}
    return {
        f"epoch: fit / {HAND_WRITTEN}": epoch,
        f"peak memory: fit / {HAND_WRITTEN}": {"ratio": float(np.median(memory))},
    }


def against_keras(network: str, rounds: int, logs: Path) -> dict[str, Any]:
    """With one thread each: with two, the time of a Keras epoch varies twofold."""
    if not KERAS.exists():
        return {}
    fit = [*OURS, "fit", network, "--trainer.accelerator=cpu", *limits(network)]
    times = {"TIMES": str(TIMES[network])}
    contenders = {
        FIT: Contender(fit, logs / f"{network}-one.log", **ONE_THREAD),
        KERAS_PROGRAM: Contender(keras_command(network), logs / f"{network}-keras-one.log", **ONE_THREAD, **times),
    }
    pairs = take_turns(contenders, rounds, f"{TITLES[network]}, one thread")[KERAS_PROGRAM]
    return {f"epoch: fit / {KERAS_ONE_THREAD}": median([pair["fit"] / pair["other"] for pair in pairs])}


def two_processes(network: str, rounds: int, logs: Path) -> dict[str, Any]:
    """Two processes with one thread each, against one.

    In blocks of 150 steps: with two processes, what is done once an epoch takes a part of a short one that it doesn't
    take of a real one.
    """
    longer = ["--trainer.limit_train_batches=150", "--trainer.limit_val_batches=30"]
    one = [*OURS, "fit", network, "--trainer.accelerator=cpu", *longer]
    two = [*one, "--trainer.strategy=ddp", "--trainer.devices=2"]
    contenders = {
        "two": Contender(two, logs / f"{network}-two.log", **ONE_THREAD),
        "one": Contender(one, logs / f"{network}-one.log", **ONE_THREAD),
    }
    pairs = take_turns(contenders, rounds, f"{TITLES[network]}, two processes")["one"]
    return {"speed: 2 processes / 1 process, one thread each": median([pair["other"] / pair["fit"] for pair in pairs])}


def start_up(rounds: int) -> dict[str, Any]:
    """Time to the help text and to the end of the first training step, against bare imports."""
    with tempfile.TemporaryDirectory() as folder:
        commands = {
            "imports": ["-c", "import lightning, torchvision"],
            "--help": ["-m", "src", "--help"],
            "first training step": [
                *("-m", "src", "fit", "--config=configs/lenet5.yaml", f"--trainer.default_root_dir={folder}"),
                "--trainer.callbacks+=benchmarks.first_step.FirstStep",
            ],
        }
        seconds: dict[str, list[float]] = defaultdict(list)
        for number in tqdm(range(rounds + 1), desc="Start-up", unit=" rounds"):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run([sys.executable, *command], check=True, capture_output=True)
                if number:  # the first round fills the caches of the disk
                    seconds[name].append(time.perf_counter() - started)
    bare = np.array(seconds.pop("imports"))
    return {f"start-up: {name} / imports": median(list(np.array(times) / bare)) for name, times in seconds.items()}


PARTS = {LOOP: against_hand_written, "others": race, "keras": against_keras, "processes": two_processes}


def draw(report: dict[str, Any]) -> Figure:
    """Epoch ratios of both networks, with intervals; 1 is as fast as `fit`."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot(xlabel="time of an epoch, in epochs of fit", title="python -m src fit against others")
    first, *others = report["networks"].values()
    names = [name for name in first if name.startswith("epoch") and all(name in other for other in others)]
    for offset, (network, figures) in enumerate(report["networks"].items()):
        rows = np.arange(len(names)) + 0.35 * (offset - 0.5)
        values = np.array([[1 / figures[name][key] for key in ("ratio", "high", "low")] for name in names])
        values = values.reshape(-1, 3).T  # also if no epoch was measured
        errors = np.abs(values[1:] - values[0])
        axes.barh(rows, values[0], height=0.33, xerr=errors, label=TITLES[network])
        for row, value in zip(rows, values[0], strict=True):
            axes.text(0.05, row, f"{value:.2f}", va="center", fontsize=8, color="white")
    axes.set_xlim(0, 3)  # the interval of Keras may reach far beyond
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(np.arange(len(names)), [name.removeprefix("epoch: fit / ") for name in names])
    axes.invert_yaxis()
    axes.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], prog="python -m benchmarks")
    parser.add_argument("networks", nargs="*", default=[], choices=[*TITLES, []], metavar="lenet5|cnn")
    parser.add_argument(
        "--blocks",
        type=int,
        default=30,
        help="Blocks against the hand-written loop (30); a third of them against the others.",
    )
    parts = [*PARTS, START_UP]
    text = "What to measure; the other figures in benchmarks.json are kept, if this machine measured them."
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, metavar="PART", help=f"{text} {parts}")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="Folder of the figures and the picture.")
    given = parser.parse_args()
    if given.blocks < 9:
        parser.error(f"--blocks {given.blocks} is too few for an interval: at least 9.")
    file = given.output / "benchmarks.json"
    machine = describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    kept = json.loads(file.read_text()) if file.exists() else {}
    report: dict[str, Any] = kept if kept.get("machine") == machine else {"machine": machine, "networks": {}}
    with tempfile.TemporaryDirectory() as logs:
        for network in given.networks or TITLES:
            figures = report["networks"].setdefault(network, {})
            for part in given.parts:
                if part in PARTS:
                    blocks = given.blocks if part == LOOP else given.blocks // 3
                    figures |= PARTS[part](network, blocks, Path(logs))
    if START_UP in given.parts:
        report[START_UP] = start_up(given.blocks // 3)
    rows = [(TITLES[network], *row) for network, figures in report["networks"].items() for row in figures.items()]
    for title, name, figure in [*rows, *(("", *row) for row in report.get(START_UP, {}).items())]:
        interval = "({low:.3f} … {high:.3f}, {blocks} blocks)".format_map(figure) if "low" in figure else ""
        print(f"{title:7} {name:56} {figure['ratio']:.3f}  {interval}")
    given.output.mkdir(exist_ok=True)
    file.write_text(f"{json.dumps(report, indent=2)}\n")
    draw(report).savefig(given.output / "benchmarks.png", dpi=120)
    print(f"Figures: {file}, picture: {given.output / 'benchmarks.png'}")


if __name__ == "__main__":
    main()
