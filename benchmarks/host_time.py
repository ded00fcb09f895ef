"""What the host does in a training step: `python -m benchmarks.host_time [--before FOLDER]`.

With one image in a batch and one thread on the CPU, the operators compute almost nothing, and what is left is the time
in which Python and torch prepare them. A GPU waits for this time. `fit` and a hand-written loop take turns in blocks of
1,000 steps; a figure is the median of the blocks, in ms of CPU time. `--before` is the folder of another checkout,
whose `fit` takes turns with them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from benchmarks.contenders import NETWORKS, forward
from src.cli.main import main
from src.data import MNISTDataModule
from src.system.machine import speed_up_cpu

STEPS, WARM_UP = 1000, 2  # steps of a block, and blocks that do not count
COUNTED = 100  # steps whose operators are counted, in the warm-up


class Operators(TorchDispatchMode):
    """Counts the operators that torch dispatches."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


class Steps:
    """Reports the CPU time of each block of steps to the driver, and when it has the turn."""

    def __init__(self) -> None:
        self.reports = os.fdopen(int(os.environ["REPORTS"]), "w", buffering=1)
        self.operators = Operators()
        self.number, self.started = 0, 0.0

    def __call__(self) -> None:
        """Called before each step."""
        if self.number == 0:
            self.operators.__enter__()
        elif self.number == COUNTED:
            self.operators.__exit__(None, None, None)
        if self.number % STEPS == 0:
            milliseconds = 1000 * (time.process_time() - self.started) / STEPS
            print(json.dumps([milliseconds, self.operators.count / COUNTED]), file=self.reports)
            if not sys.stdin.readline():
                os._exit(0)
            self.started = time.process_time()
        self.number += 1


class Reporter(Callback):
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.steps = Steps()

    def on_train_batch_start(self, *args: Any) -> None:
        self.steps()


def fit(network: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = ["--data.batch_size=1", "--trainer.callbacks+=benchmarks.host_time.Reporter"]
        main(["fit", f"--config=configs/{network}.yaml", *options, f"--trainer.default_root_dir={folder}"])


def loop(network: str) -> None:
    speed_up_cpu()  # as `fit` does
    data = MNISTDataModule()
    data.prepare_data()
    data.setup("fit")
    images, labels = data.train
    model = NETWORKS[network]().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
    sums, steps = torch.zeros(2), Steps()
    for index in torch.randperm(len(labels)).split(1):
        steps()
        loss = forward(model, images[index], labels[index], sums)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Contender:
    """A process that does a block of steps when it is its turn."""

    def __init__(self, name: str, network: str, folder: str = ".") -> None:
        reports, its_end = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.host_time", network, "--only", name],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[its_end],
            env=os.environ | {"REPORTS": str(its_end), "OMP_NUM_THREADS": "1"},
        )
        os.close(its_end)
        self.reports = os.fdopen(reports)
        self.reports.readline()
        for _ in range(WARM_UP):
            _, self.operators = self.block()

    def block(self) -> tuple[float, float]:
        """Returns: ms in a step, and operators in a step."""
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        milliseconds, operators = json.loads(self.reports.readline())
        return milliseconds, operators


def race(network: str, blocks: int, before: str | None) -> None:
    contenders = {"hand-written loop": Contender("loop", network), "fit": Contender("fit", network)}
    if before:
        contenders["fit before"] = Contender("fit", network, before)
    blocks_of: dict[str, list[float]] = {name: [] for name in contenders}
    for number in tqdm(range(blocks), desc=network):
        for name in list(contenders)[:: 1 if number % 2 else -1]:
            blocks_of[name].append(contenders[name].block()[0])
    for name, milliseconds in blocks_of.items():
        print(f"{network:7} {name:18} {np.median(milliseconds):.3f} ms, {contenders[name].operators:.0f} operators")
        contenders[name].process.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], prog="python -m benchmarks.host_time")
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="lenet5|cnn")
    parser.add_argument("--blocks", type=int, default=10, help="Blocks of each contender (10).")
    parser.add_argument("--before", metavar="FOLDER", help="Another checkout with this file, to compare with.")
    parser.add_argument("--only", choices=["fit", "loop"], help=argparse.SUPPRESS)  # a contender
    given = parser.parse_args()
    if given.only:
        {"fit": fit, "loop": loop}[given.only](given.networks[0])
    else:
        for network in given.networks:
            race(network, given.blocks, given.before)
