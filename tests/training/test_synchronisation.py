"""What a training step costs beside its computation: it does not wait for the device, and adds few operators."""

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from torch.utils._python_dispatch import TorchDispatchMode

from src.training import stopping
from tests.conftest import CURVES_ALONE, RunCLI
from tests.tiny import Tiny


class Operators(TorchDispatchMode):
    """Counts the operators that run."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


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
    outcome = cli(
        "fit", "--model=LeNet5", *short, "--trainer.limit_test_batches=1", "--data.batch_size=8", CURVES_ALONE, *options
    )
    assert outcome.code == 0, outcome.err
    found = {number for number, n_reads in reads.items() if 1 < number < 60 and n_reads}
    assert {21, 41} <= found <= {20, 21, 40, 41}  # in 21 and 41, the loss of the last 20 steps is checked


def test_fit_adds_at_most_24_operators_to_a_bare_step(cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images, labels, their scaling, metrics, the weight of the loss, and what Lightning adds."""
    of_fit, of_loop = Operators(), Operators()

    def on_train_batch_start(self: stopping.Stopping, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == 20:
            of_fit.__enter__()
        elif trainer.global_step == 40:
            of_fit.__exit__(None, None, None)

    monkeypatch.setattr(stopping.Stopping, "on_train_batch_start", on_train_batch_start)
    short = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=50", "--trainer.limit_val_batches=1")
    quiet = (
        "--trainer.limit_test_batches=1",
        "--trainer.enable_progress_bar=false",
        "--data.batch_size=8",
        CURVES_ALONE,
    )
    assert cli("fit", "--model=tests.tiny.Tiny", *short, *quiet).code == 0
    network, x_NCHW, labels_N = Tiny(), torch.zeros(8, 1, 28, 28), torch.zeros(8, dtype=torch.long)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    for number in range(40):
        if number == 20:
            of_loop.__enter__()
        optimizer.zero_grad()
        F.cross_entropy(network(x_NCHW), labels_N).backward()
        optimizer.step()
    of_loop.__exit__(None, None, None)
    assert of_fit.count > of_loop.count > 0
    assert of_fit.count / 20 <= of_loop.count / 20 + 24
