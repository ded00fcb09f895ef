"""Compare the speed of `fit` with that of others: `python -m benchmarks [NETWORK …] [--blocks 30]`.

Each contender is a process of its own, and they take turns in blocks of work (see `contenders.py`), so
that other load on the machine slows all of them. A figure is the median of the ratios of
neighbouring blocks, with its 95 % interval (bootstrap). Against the hand-written loop it is the mean of such medians
from five pairs of processes (t interval). Writes docs/benchmarks.json and docs/benchmarks.png.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import bootstrap, sem, t
from tqdm import tqdm

from src.system.machine import describe_machine

KERAS = Path(".venv-keras", "bin", "python")
WARM_UP = 2  # blocks
PAIRS = 5  # of processes, for a difference of a few per cent
TIMES = {"lenet5": "9", "cnn": "3"}  # as many steps in a block: in short ones, what is done once an epoch weighs more
FIT, HAND_WRITTEN, USUAL_0, USUAL_2 = "fit", "hand-written loop", "usual pipeline", "usual pipeline, 2 workers"
KERAS_PROGRAM = "published Keras program"
LOOP = "loop"
KERAS_ONE_THREAD = f"{KERAS_PROGRAM}, one thread each"
OURS, OF_KERAS = [sys.executable, "-m", "benchmarks.contenders"], [str(KERAS), "benchmarks/keras_program.py"]
TITLES = {"lenet5": "LeNet5", "cnn": "CNN"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


class Contender:
    """A process that does one block when it is its turn. What it prints goes to a log."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self.log = log
        reports, its_end = os.pipe()
        with log.open("w") as output:
            env = os.environ | {"REPORTS": str(its_end)} | environment
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, pass_fds=[its_end], env=env
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


def take_turns(contenders: dict[str, Contender], rounds: int, title: str) -> dict[str, list[float]]:
    """Ends the contenders. Returns: for each but the first, the time of a block of the first over its own, by round."""
    names = list(contenders)
    for contender in contenders.values():
        for _ in range(WARM_UP):
            contender.block()
    ratios: dict[str, list[float]] = {name: [] for name in names[1:]}
    for number in tqdm(range(rounds), desc=title, unit=" rounds"):
        # In turn from either end, so that none always follows the same.
        took = {name: contenders[name].block() for name in (names if number % 2 else reversed(names))}
        for name in ratios:
            ratios[name].append(took[names[0]] / took[name])
    for contender in contenders.values():
        contender.end()
    return ratios


def against_others(network: str, rounds: int, logs: Path) -> dict[str, Any]:
    commands = {
        FIT: [*OURS, "fit", network],
        USUAL_0: [*OURS, "usual", network, "0"],
        USUAL_2: [*OURS, "usual", network, "2"],
    }
    if KERAS.exists():
        commands[KERAS_PROGRAM] = [*OF_KERAS, network, "data"]
    else:
        print("Keras is left out: there is no .venv-keras (`make bench` builds it where tensorflow-cpu can be had).")
    contenders = {name: Contender(command, logs / f"{network}-{name}.log") for name, command in commands.items()}
    ratios = take_turns(contenders, rounds, TITLES[network])
    return {f"epoch: fit / {name}": median(of_rounds) for name, of_rounds in ratios.items()}


def against_hand_written(network: str, rounds: int, logs: Path) -> dict[str, Any]:
    """In pairs of new processes: within a pair the ratios agree, from pair to pair they differ by some per cent."""
    commands = {FIT: [*OURS, "fit", network], HAND_WRITTEN: [*OURS, "hand_written", network]}
    ratios, memory = [], []
    for number in range(PAIRS):
        contenders = {
            name: Contender(command, logs / f"{network}-{name}.log", TIMES=TIMES[network])
            for name, command in commands.items()
        }
        title = f"{TITLES[network]}, pair {number + 1} of {PAIRS}"
        of_rounds = take_turns(contenders, -(-rounds // PAIRS), title)[HAND_WRITTEN]
        ratios.append(float(np.median(of_rounds)))
        memory.append(contenders[FIT].peak_memory / contenders[HAND_WRITTEN].peak_memory)
    low, high = t.interval(0.95, PAIRS - 1, np.mean(ratios), sem(ratios))
    interval = {"low": low, "high": high, "blocks": len(of_rounds) * PAIRS}
    return {
        f"epoch: fit / {HAND_WRITTEN}": {"ratio": float(np.mean(ratios)), **interval, "pairs": ratios},
        f"peak memory: fit / {HAND_WRITTEN}": {"ratio": float(np.median(memory))},
    }


def against_keras(network: str, rounds: int, logs: Path) -> dict[str, Any]:
    """With one thread each: with two, the time of a Keras epoch varies twofold."""
    if not KERAS.exists():
        return {}
    environment = ONE_THREAD | {"TIMES": TIMES[network]}
    fit = [*OURS, "fit", network, "--trainer.accelerator=cpu"]
    contenders = {
        FIT: Contender(fit, logs / f"{network}-one.log", **environment),
        KERAS_PROGRAM: Contender([*OF_KERAS, network, "data"], logs / f"{network}-keras-one.log", **environment),
    }
    ratios = take_turns(contenders, rounds, f"{TITLES[network]}, one thread")[KERAS_PROGRAM]
    return {f"epoch: fit / {KERAS_ONE_THREAD}": median(ratios)}


PARTS = {LOOP: against_hand_written, "others": against_others, "keras": against_keras}


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
    text = "What to measure; the other figures in benchmarks.json are kept, if this machine measured them."
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART", help=f"{text} {[*PARTS]}"
    )
    parser.add_argument("--output", type=Path, default=Path("docs"), help="Folder of the figures and the picture.")
    args = parser.parse_args()
    if args.blocks < 9:
        parser.error(f"--blocks {args.blocks} is too few for an interval: at least 9.")
    file = args.output / "benchmarks.json"
    machine = describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    kept = json.loads(file.read_text()) if file.exists() else {}
    report: dict[str, Any] = kept if kept.get("machine") == machine else {"machine": machine, "networks": {}}
    with tempfile.TemporaryDirectory() as logs:
        for network in args.networks or TITLES:
            figures = report["networks"].setdefault(network, {})
            for part in args.parts:
                blocks = args.blocks if part == LOOP else args.blocks // 3
                figures |= PARTS[part](network, blocks, Path(logs))
    for network, figures in report["networks"].items():
        for name, figure in figures.items():
            interval = "({low:.3f} … {high:.3f}, {blocks} blocks)".format_map(figure) if "low" in figure else ""
            print(f"{TITLES[network]:7} {name:56} {figure['ratio']:.3f}  {interval}")
    args.output.mkdir(exist_ok=True)
    file.write_text(f"{json.dumps(report, indent=2)}\n")
    draw(report).savefig(args.output / "benchmarks.png", dpi=120)
    print(f"Figures: {file}, picture: {args.output / 'benchmarks.png'}")


if __name__ == "__main__":
    main()
