"""Time an epoch of `fit` against a hand-written PyTorch loop, alternated in one process.

    python -m benchmarks.epoch [lenet5|cnn]

Each block is one short epoch: 50 training steps, validation on 10 batches, metrics, and for `fit` all
that it does besides (logging, progress bar, checkpoint). Printed: the median of the paired ratios with
its 95 % interval.
"""

import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from scipy.stats import bootstrap

from src.cli import main

TRAIN_STEPS, VAL_STEPS, BLOCKS = 50, 10, 40


class HandWritten(Callback):
    """Runs one epoch of the hand-written loop before each epoch of `fit`, and times both."""

    def __init__(self) -> None:
        self.fit_seconds: list[float] = []
        self.hand_seconds: list[float] = []
        self.fit_started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.hand_seconds:
            self.fit_seconds.append(time.perf_counter() - self.fit_started)
        else:
            self.network = type(pl_module)().to(memory_format=torch.channels_last)
            self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, eps=1e-7, fused=True)
        started = time.perf_counter()
        hand_written_epoch(self.network, self.optimizer, trainer.datamodule)  # type: ignore[attr-defined]
        self.hand_seconds.append(time.perf_counter() - started)
        self.fit_started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.fit_seconds.append(time.perf_counter() - self.fit_started)
        ratios = np.array(self.fit_seconds[2:]) / np.array(self.hand_seconds[2:])  # warm-up left out
        low, high = bootstrap((ratios,), np.median, rng=0).confidence_interval
        name = type(pl_module).__name__
        print(
            f"{name}: fit / hand-written loop = {np.median(ratios):.3f} ({low:.3f} … {high:.3f}, {len(ratios)} blocks)"
        )


def hand_written_epoch(network: LightningModule, optimizer: torch.optim.Optimizer, data: Any) -> None:
    """The loop that one would write without Lightning, over the same tensors in memory."""
    images_NHW, labels_N = data.train
    order = torch.randperm(len(labels_N))
    sums = torch.zeros(2)
    network.train()
    for step in range(TRAIN_STEPS):
        index = order[step * 128 : (step + 1) * 128]
        x_NCHW, y_N = prepare(images_NHW[index]), labels_N[index]
        logits_NK = network(x_NCHW)
        loss = F.cross_entropy(logits_NK, y_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sums += torch.stack([loss.detach() * len(y_N), (logits_NK.argmax(1) == y_N).sum()])
    network.eval()
    images_NHW, labels_N = data.val
    with torch.inference_mode():
        for step in range(VAL_STEPS):
            batch = slice(step * 128, (step + 1) * 128)
            logits_NK = network(prepare(images_NHW[batch]))
            loss = F.cross_entropy(logits_NK, labels_N[batch], reduction="sum")
            sums += torch.stack([loss, (logits_NK.argmax(1) == labels_N[batch]).sum()])
    sums.tolist()


def prepare(images_NHW: torch.Tensor) -> torch.Tensor:
    return images_NHW.unsqueeze(1).float().div_(255).sub_(0.1307).div_(0.3081)


if __name__ == "__main__":
    names = sys.argv[1:] or ["lenet5", "cnn"]
    sys.argv[1:] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            main(
                [
                    "fit",
                    f"--config=configs/{name}.yaml",
                    "--trainer.callbacks+=benchmarks.epoch.HandWritten",
                    f"--trainer.default_root_dir={folder}",
                    f"--trainer.max_epochs={BLOCKS + 2}",
                    f"--trainer.limit_train_batches={TRAIN_STEPS}",
                    f"--trainer.limit_val_batches={VAL_STEPS}",
                    "--trainer.limit_test_batches=1",
                ]
            )
