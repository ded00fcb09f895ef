"""A training step does not wait for the device: values are read from it once in 20 steps."""

from collections import Counter
from typing import Any

import pytest
import torch
from lightning import Trainer

from src.training import stopping
from tests.conftest import RunCLI

READS = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")


@pytest.mark.parametrize("options", [(), ("--model.schedule=one_cycle", "--data.max_shift=1", "--data.elastic=1")])
def test_values_are_read_from_the_device_once_in_20_steps(
    cli: RunCLI, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    """On the CPU, by counting the calls that would wait for one."""
    reads: Counter[int] = Counter()
    step = 0

    def count(name: str) -> None:
        method = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            reads[step] += 1
            return method(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)

    start = stopping.Stopping.on_train_batch_start

    def on_train_batch_start(self: stopping.Stopping, trainer: Trainer, *args: Any) -> None:
        nonlocal step
        step = trainer.global_step + 1
        start(self, trainer, *args)

    monkeypatch.setattr(stopping.Stopping, "on_train_batch_start", on_train_batch_start)
    for name in READS:
        count(name)
    short = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=60", "--trainer.limit_val_batches=1")
    outcome = cli("fit", "--model=LeNet5", *short, "--trainer.limit_test_batches=1", "--data.batch_size=8", *options)
    assert outcome.code == 0, outcome.err
    assert {number for number, n_reads in reads.items() if 1 < number < 60 and n_reads} <= {20, 21, 40, 41}
