"""Compare the speed of `fit` with that of others: `python -m benchmarks [NETWORK …] [--parts loop] [--cores 1 2]`.

Both contenders of a pair are new processes on the same cores, and take turns in blocks of work (see `contenders.py`),
so that other load on the machine slows both. From pair to pair, the ratio of their times differs by some per cent. So a
figure is the geometric mean of several pairs, with its 95 % interval (t). Each processor has its own figures in
docs/benchmarks.json; docs/benchmarks.png and docs/speed.md show all of them. It needs Linux.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.stats import sem, t
from tqdm import tqdm

from src.system.machine import cpu_name

KERAS = Path(".venv-keras", "bin", "python")
FIT, HAND_WRITTEN, USUAL, KERAS_PROGRAM = "fit", "hand-written loop", "usual pipeline", "published Keras program"
OURS, OF_KERAS = [sys.executable, "-m", "benchmarks.contenders"], [str(KERAS), "benchmarks/keras_program.py"]
PARTS = {"loop": HAND_WRITTEN, "usual": USUAL, "keras": KERAS_PROGRAM}
TITLES = {"lenet5": "LeNet5", "cnn": "CNN"}
TIMES = {"lenet5": 9, "cnn": 3}  # as many steps in a block: in short ones, what is done once an epoch weighs more
EPOCH, STEPS = 469, 50  # steps; those of a block with TIMES=1


class Contender:
    """A process on the given cores that does one block when it is its turn. What it prints goes to a log."""

    def __init__(self, command: list[str], log: Path, cores: set[int], times: int, folder: Path) -> None:
        self.log = log
        reports, its_end = os.pipe()
        # Without environment variables, torch and TensorFlow start as many threads as there are cores for the process.
        env = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
        env |= {"REPORTS": str(its_end), "TIMES": str(times), "CUDA_VISIBLE_DEVICES": ""}
        with log.open("w") as output:
            streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": output, "stderr": output, "text": True}
            pin = partial(os.sched_setaffinity, 0, cores)  # before any thread is started
            self.process = subprocess.Popen(command, pass_fds=[its_end], env=env, cwd=folder, preexec_fn=pin, **streams)
        os.close(its_end)
        self.reports = os.fdopen(reports)

    def block(self) -> dict[str, float]:
        """Returns: its wall and CPU seconds, and the peak memory until now in bytes."""
        print(file=self.process.stdin, flush=True)
        return self.report()

    def report(self) -> dict[str, float]:
        if not (line := self.reports.readline()):
            raise SystemExit(f"{' '.join(self.process.args)} has ended:\n{self.log.read_text()[-3000:]}")  # type: ignore[arg-type]
        return json.loads(line)


def one_pair(contenders: list[Contender], turns: range) -> list[dict[str, float]]:
    """Ends the contenders. Returns: for each, the mean of its blocks. The first has odd turns first, the other even."""
    for contender in contenders:
        contender.report()  # it is ready
        contender.block()  # to warm up
    reports: list[list[dict[str, float]]] = [[] for _ in contenders]
    for turn in turns:
        for place in (0, 1) if turn % 2 else (1, 0):
            reports[place].append(contenders[place].block())
    for contender in contenders:
        contender.process.communicate()  # closes its input
    return [{name: float(np.mean([one[name] for one in of_one])) for name in of_one[0]} for of_one in reports]


def measure(network: str, other: str, n_cores: int, args: argparse.Namespace, logs: Path) -> dict[str, Any]:
    fit = [*OURS, "fit", network]
    commands = {HAND_WRITTEN: [*OURS, "hand_written", network], USUAL: [*OURS, "usual", network]}
    command = [*OF_KERAS, network, "data"] if other == KERAS_PROGRAM else commands.get(other, fit)
    folders = [Path.cwd(), Path.cwd() if other in PARTS.values() else args.against]
    cores = set(physical_cores()[:n_cores])
    times, pairs = args.times or TIMES[network], []
    for pair in tqdm(range(args.pairs), desc=f"{TITLES[network]}, {row(other, n_cores)}", unit=" pairs"):
        contenders = [
            Contender(command, logs / str(place), cores, times, folder)
            for place, (command, folder) in enumerate(zip((fit, command), folders, strict=True))
        ]
        pairs.append(one_pair(contenders, range(pair, pair + args.blocks)))
    figure: dict[str, Any] = {"pairs": args.pairs, "blocks of a pair": args.blocks}
    for name in pairs[0][0]:
        values_P2 = np.array([[one[name] for one in pair] for pair in pairs])
        ratios_P = values_P2[:, 0] / values_P2[:, 1]
        mean = np.log(ratios_P).mean()
        low, high = np.exp(t.interval(0.95, args.pairs - 1, mean, sem(np.log(ratios_P))))
        figure[name] = {"ratio": np.exp(mean), "low": low, "high": high, "of pairs": ratios_P.tolist()}
        if name != "peak memory":
            figure[name]["seconds of an epoch"] = (values_P2.mean(axis=0) * EPOCH / (STEPS * times)).tolist()
    return figure


def row(other: str, n_cores: int) -> str:
    return f"{other}, {n_cores} core{'s' * (n_cores > 1)}"


def physical_cores() -> list[int]:
    """One of the hardware threads of each core that this process may use."""
    of_core = {}
    for number in sorted(os.sched_getaffinity(0), reverse=True):
        siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        of_core[siblings.read_text() if siblings.exists() else number] = number
    return sorted(of_core.values())


def table(report: dict[str, Any]) -> str:
    """All figures in Markdown."""
    lines = []
    for title, block in report.items():
        lines += [f"**{title}**, {block['about']}:", "", "| `fit` / other | LeNet5 | CNN |", "| --- | ---: | ---: |"]
        for name in names_of_rows(block):
            found = [block["networks"].get(network, {}).get(name, {}) for network in TITLES]
            for measured in ("wall time", "CPU time", "peak memory"):
                if any(measured in figures for figures in found):
                    cells = [cell(figures[measured]) if measured in figures else "" for figures in found]
                    lines.append(f"| {name}: {measured} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def cell(figure: dict[str, Any]) -> str:
    interval = " ({low:.2f} to {high:.2f})".format_map(figure) if "low" in figure else ""
    epoch = "; {:.1f} / {:.1f} s".format(*figure["seconds of an epoch"]) if "seconds of an epoch" in figure else ""
    return f"{figure['ratio']:.2f}{interval}{epoch}"


def names_of_rows(block: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for figures in block["networks"].values() for name in figures))


def draw(report: dict[str, Any]) -> Figure:
    """Ratios of wall time of both networks on each processor, with intervals; 1 is as fast as `fit`."""
    lengths = [len(names_of_rows(block)) for block in report.values()]
    figure = Figure(figsize=(9, 1 + sum(0.7 + 0.4 * length for length in lengths)), layout="constrained")
    all_axes = figure.subplots(len(report), squeeze=False, height_ratios=lengths)[:, 0]
    for axes, (title, block) in zip(all_axes, report.items(), strict=True):
        names = names_of_rows(block)
        for offset, network in enumerate(TITLES):
            found = {name: one["wall time"] for name, one in block["networks"].get(network, {}).items()}
            y = [names.index(name) + 0.35 * (offset - 0.5) for name in found]
            values = [[1 / one[key] for one in found.values()] for key in ("ratio", "high", "low")]
            errors = np.abs(np.array(values[1:]) - values[0])
            bars = axes.barh(y, values[0], height=0.33, xerr=errors, color=f"C{offset}", label=TITLES[network])
            axes.bar_label(bars, fmt="%.2f", label_type="center", fontsize=8, color="white")
        axes.set_title(f"{title}, {block['about']}", fontsize=8)
        axes.set_xlim(0, 3)  # the interval of Keras may reach far beyond
        axes.axvline(1, color="black", linewidth=1)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
    all_axes[0].legend(fontsize=8)
    all_axes[-1].set_xlabel("wall time of an epoch, in epochs of fit")
    return figure


def write(report: dict[str, Any], output: Path) -> None:
    output.mkdir(exist_ok=True)
    (output / "benchmarks.json").write_text(f"{json.dumps(report, indent=2)}\n")
    draw(report).savefig(output / "benchmarks.png", dpi=120)
    if (page := output / "speed.md").exists():
        figures = f"<!-- python -m benchmarks -->\n\n{table(report)}\n<!-- end -->"
        page.write_text(re.sub(r"<!-- python.*<!-- end -->", lambda _: figures, page.read_text(), flags=re.DOTALL))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], prog="python -m benchmarks")
    add = parser.add_argument
    add("networks", nargs="*", default=[], choices=[*TITLES, []], metavar="lenet5|cnn")
    text = f"What to measure: {', '.join(PARTS)}. The other figures in benchmarks.json are kept."
    add("--parts", nargs="+", choices=PARTS, default=[*PARTS], metavar="PART", help=text)
    add("--cores", nargs="+", type=int, default=[1, 2], help="Numbers of cores (1 2).")
    add("--pairs", type=int, default=5, help="Pairs of processes (5).")
    add("--blocks", type=int, default=1, help="Blocks of each process, after one to warm up (1).")
    add("--times", type=int, help=f"Length of a block, in {STEPS} steps. Default: {TIMES}.")
    text = "Measure fit against the fit of another checkout instead. It needs this folder benchmarks/."
    add("--against", type=Path, metavar="FOLDER", help=text)
    add("--output", type=Path, default=Path("docs"), help="Folder of the figures and the picture.")
    args = parser.parse_args()
    if args.pairs < 2 or args.blocks < 1 or not 1 <= min(args.cores) <= max(args.cores) <= len(physical_cores()):
        parser.error(f"--pairs must be at least 2, --blocks at least 1, and --cores 1 to {len(physical_cores())}.")
    if not KERAS.exists():
        args.parts = [part for part in args.parts if part != "keras"]
        print("Keras is left out: there is no .venv-keras (`make bench` builds it where tensorflow-cpu can be had).")
    others = [f"fit of {args.against.name}"] if args.against else [PARTS[part] for part in args.parts]
    file = args.output / "benchmarks.json"
    report = json.loads(file.read_text()) if file.exists() else {}
    block = report.setdefault(cpu_name(), {"networks": {}})
    others_packages = [path.stem for path in KERAS.parents[1].glob("lib/*/*/*.dist-info")]
    versions = [f"torch-{torch.__version__}", f"lightning-{lightning.__version__}"]
    versions += sorted(name for name in others_packages if name.startswith(("keras-", "tensorflow_cpu-")))
    block["about"] = ", ".join(["pinned", *versions])
    with tempfile.TemporaryDirectory() as logs:
        for network, n_cores, other in product(args.networks or TITLES, args.cores, others):
            figures = measure(network, other, n_cores, args, Path(logs))
            block["networks"].setdefault(network, {})[row(other, n_cores)] = figures
            write(report, args.output)  # after each figure: all of them take an hour
    print(table({cpu_name(): block}))


if __name__ == "__main__":
    main()
