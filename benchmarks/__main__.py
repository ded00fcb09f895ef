"""Compare the speed of `fit` with that of others: `python -m benchmarks [NETWORK …] [--parts loop] [--cores 1 2]`.

In each round, all contenders are new processes on the same cores, and take turns in blocks of work (see
`contenders.py`), so that other load on the machine slows all. From round to round, the ratio of two times differs by
some per cent. So a figure is the geometric mean of several rounds, with its 95 % interval (t). Each processor has its
own figures in docs/benchmarks.json; docs/benchmarks.png and docs/speed.md show all of them. It needs Linux. With
`--accelerator gpu`, all use the first GPU, and the share of the time that it computes is measured in one more block.
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
HAND_WRITTEN, USUAL, KERAS_PROGRAM = "hand-written loop", "usual pipeline", "published Keras program"
GRAPH, COMPILED = "hand-written loop in a CUDA graph", "hand-written loop, compiled (reduce-overhead)"
OURS, OF_KERAS = [sys.executable, "-m", "benchmarks.contenders"], [str(KERAS), "benchmarks/keras_program.py"]
PARTS = {"loop": HAND_WRITTEN, "usual": USUAL, "keras": KERAS_PROGRAM, "graph": GRAPH, "compiled": COMPILED}
DEFAULTS = {"cpu": ["loop", "usual", "keras"], "gpu": ["loop", "graph", "compiled"]}
FUNCTIONS = {HAND_WRITTEN: "hand_written", USUAL: "usual", GRAPH: "graph", COMPILED: "compiled"}
TITLES = {"lenet5": "LeNet5", "cnn": "CNN"}
TIMES = {"lenet5": 9, "cnn": 3}  # as many steps in a block: in short ones, what is done once an epoch weighs more
EPOCH, STEPS = 469, 50  # steps; those of a block with TIMES=1
MEASURED = {  # the unit in which each is shown, and that of one step or of a block
    "wall time": ("s an epoch", EPOCH),
    "training steps": ("ms a step", 1000),
    "CPU time": ("s an epoch", EPOCH),
    "peak memory": ("MB", 1e-6),
    "peak GPU memory": ("MB", 1e-6),
    "busy": ("%", 100),
}


class Contender:
    """A process on the given cores that does one block when it is its turn. What it prints goes to a log."""

    def __init__(
        self, command: list[str], log: Path, cores: set[int], times: int, folder: Path, gpu: bool = False
    ) -> None:
        self.log = log
        reports, its_end = os.pipe()
        # Without environment variables, torch and TensorFlow start as many threads as there are cores for the process.
        env = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
        env |= {"REPORTS": str(its_end), "TIMES": str(times)} | ({} if gpu else {"CUDA_VISIBLE_DEVICES": ""})
        with log.open("w") as output:
            streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": output, "stderr": output, "text": True}
            pin = partial(os.sched_setaffinity, 0, cores)  # before any thread is started
            self.process = subprocess.Popen(command, pass_fds=[its_end], env=env, cwd=folder, preexec_fn=pin, **streams)
        os.close(its_end)
        self.reports = os.fdopen(reports)

    def block(self, order: str = "") -> dict[str, float]:
        """Returns: its wall and CPU seconds, those of its training steps, and the peak memory until now in bytes."""
        print(order, file=self.process.stdin, flush=True)
        return self.report()

    def report(self) -> dict[str, float]:
        if not (line := self.reports.readline()):
            raise SystemExit(f"{' '.join(self.process.args)} has ended:\n{self.log.read_text()[-3000:]}")  # type: ignore[arg-type]
        return json.loads(line)


def one_round(contenders: list[Contender], turns: range, busy: bool = False) -> list[dict[str, float]]:
    """Ends the contenders. Returns: for each, the mean of its blocks. In even turns, the last has its turn first."""
    for contender in contenders:
        contender.report()  # it is ready: all start at once
        contender.block()  # to warm up
    reports: list[list[dict[str, float]]] = [[] for _ in contenders]
    for turn in turns:
        for place in range(len(contenders))[:: 1 if turn % 2 else -1]:
            reports[place].append(contenders[place].block())
    means = [{name: float(np.mean([one[name] for one in of_one])) for name in of_one[0]} for of_one in reports]
    for contender, mean in zip(contenders, means, strict=True):
        if busy and (seconds := contender.block("profile").get("device time")):  # Keras has none
            mean["busy"] = seconds / mean["wall time"]  # the profiler slows the process, but not the device
        contender.process.communicate()  # closes its input
    return means


def measure(network: str, others: list[str], n_cores: int, args: argparse.Namespace, logs: Path) -> dict[str, Any]:
    """Returns: the figures of each other contender."""
    commands = [
        [*OF_KERAS, network, "data"] if other == KERAS_PROGRAM else [*OURS, FUNCTIONS.get(other, "fit"), network]
        for other in ("fit", *others)  # of which one may be the fit of another checkout
    ]
    folders = [Path.cwd(), *[args.against or Path.cwd()] * len(others)]
    cores = set(physical_cores()[:n_cores])
    times, rounds = args.times or TIMES[network], []
    for number in tqdm(range(args.rounds), desc=f"{TITLES[network]}, {row('fit', n_cores)}", unit=" rounds"):
        contenders = [
            Contender(command, logs / str(place), cores, times, folder, args.accelerator == "gpu")
            for place, (command, folder) in enumerate(zip(commands, folders, strict=True))
        ]
        rounds.append(one_round(contenders, range(number, number + args.blocks), args.busy))
    return {
        row(other, n_cores): figures([(one[0], one[place]) for one in rounds], times)
        | {"blocks of a round": args.blocks}
        for place, other in enumerate(others, start=1)
    }


def figures(rounds: list[tuple[dict[str, float], dict[str, float]]], times: int) -> dict[str, Any]:
    """Ratios of what was measured of both, with 95 % intervals."""
    found: dict[str, Any] = {"rounds": len(rounds)}
    for name, (unit, per_block) in MEASURED.items():
        if name not in rounds[0][0] or name not in rounds[0][1]:
            continue
        scale = per_block * (1 if unit in ("MB", "%") else 1 / (STEPS * times))
        values_R2 = np.array([[one[name] for one in both] for both in rounds])
        ratios_R = values_R2[:, 0] / values_R2[:, 1]
        mean = np.log(ratios_R).mean()
        low, high = np.exp(t.interval(0.95, len(rounds) - 1, mean, sem(np.log(ratios_R))))
        found[name] = {"ratio": np.exp(mean), "low": low, "high": high, "of rounds": ratios_R.tolist()}
        found[name] |= {"unit": unit, "of both": (values_R2.mean(axis=0) * scale).tolist()}
    return found


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
            for measured in MEASURED:
                if any(measured in figures for figures in found):
                    cells = [cell(figures[measured]) if measured in figures else "" for figures in found]
                    lines.append(f"| {name}: {measured} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def cell(figure: dict[str, Any]) -> str:
    interval = " ({low:.2f} to {high:.2f})".format_map(figure) if "low" in figure else ""
    of_both = "; {:,.1f} / {:,.1f} {}".format(*figure["of both"], figure["unit"]) if "unit" in figure else ""
    return f"{figure['ratio']:.2f}{interval}{of_both}"


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
        axes.set_title(f"{title}\n{block['about']}", fontsize=8)
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


def parsed_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], prog="python -m benchmarks")
    add = parser.add_argument
    add("networks", nargs="*", default=[], choices=[*TITLES, []], metavar="lenet5|cnn")
    defaults = "; ".join(f"on a {name.upper()} {', '.join(parts)}" for name, parts in DEFAULTS.items())
    text = f"What to measure. Default: {defaults}. The other figures in benchmarks.json are kept."
    add("--parts", nargs="+", choices=PARTS, metavar="|".join(PARTS), help=text)
    add("--accelerator", choices=DEFAULTS, default="cpu", help="Where all train (cpu).")
    add("--busy", action="store_true", help="Also measure how long the device computes. Always so on a GPU.")
    add("--cores", nargs="+", type=int, help="Numbers of cores. Default: 1 2; for a GPU, 2.")
    add("--rounds", type=int, help="Rounds, each with new processes. Default: 5; on a GPU, 3.")
    add("--blocks", type=int, help="Blocks of each process, after one to warm up. Default: 1; on a GPU, 5.")
    add("--times", type=int, help=f"Length of a block, in {STEPS} steps. Default: {TIMES}.")
    text = "Measure fit against the fit of another checkout instead. It needs this folder benchmarks/."
    add("--against", type=Path, metavar="FOLDER", help=text)
    add("--output", type=Path, default=Path("docs"), help="Folder of the figures and the picture.")
    args = parser.parse_args()
    on_gpu = args.accelerator == "gpu"
    if on_gpu and not torch.cuda.is_available():
        parser.error("there is no GPU that torch can use. --accelerator cpu tries everything but the device.")
    args.busy |= on_gpu
    defaults_of: dict[str, Any] = {"parts": DEFAULTS[args.accelerator]}
    defaults_of |= {"cores": [2], "rounds": 3, "blocks": 5} if on_gpu else {"cores": [1, 2], "rounds": 5, "blocks": 1}
    for name, default in defaults_of.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    if args.rounds < 2 or args.blocks < 1 or not 1 <= min(args.cores) <= max(args.cores) <= len(physical_cores()):
        parser.error(f"--rounds must be at least 2, --blocks at least 1, and --cores 1 to {len(physical_cores())}.")
    if "keras" in args.parts and not KERAS.exists():
        args.parts = [part for part in args.parts if part != "keras"]
        print("Keras is left out: there is no .venv-keras (`make bench` builds it where tensorflow-cpu can be had).")
    return args


def main() -> None:
    args = parsed_arguments()
    on_gpu = args.accelerator == "gpu"
    others = [f"fit of {args.against.name}"] if args.against else [PARTS[part] for part in args.parts]
    file = args.output / "benchmarks.json"
    report = json.loads(file.read_text()) if file.exists() else {}
    name = torch.cuda.get_device_name() if on_gpu else cpu_name()
    block = report.setdefault(name, {"networks": {}})
    others_packages = [path.stem for path in KERAS.parents[1].glob("lib/*/*/*.dist-info")]
    versions = [f"torch-{torch.__version__}", f"lightning-{lightning.__version__}"]
    versions += sorted(one for one in others_packages if one.startswith(("keras-", "tensorflow_cpu-")))
    block["about"] = ", ".join(["pinned", *versions, *([f"host {cpu_name()}"] if on_gpu else [])])
    with tempfile.TemporaryDirectory() as logs:
        for network, n_cores in product(args.networks or TITLES, args.cores):
            found = measure(network, others, n_cores, args, Path(logs))
            block["networks"].setdefault(network, {}).update(found)
            write(report, args.output)  # after each network: all of them take an hour
    print(table({name: block}))


if __name__ == "__main__":
    main()
