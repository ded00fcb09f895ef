import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from src.runs.checkpoints import load_checkpoint
from src.training.stopping import Stopping
from tests.conftest import CURVES_ALONE

SHORT_WITH_TABS = (
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=8",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=2",
    "--data.batch_size=32",
)
SHORT = (*SHORT_WITH_TABS, CURVES_ALONE)

Stop = Callable[[int, signal.Signals], None]


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Send this process a signal during a step of the next training."""
    end_of_step: Any = Stopping.on_train_batch_end

    def send(step: int, number: signal.Signals) -> None:
        def on_train_batch_end(self: Stopping, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == step and not self.received:  # a second one would end this process
                os.kill(os.getpid(), number)
            end_of_step(self, trainer, *args)

        monkeypatch.setattr(Stopping, "on_train_batch_end", on_train_batch_end)

    return send


def assert_identical(first: Path, second: Path) -> None:
    """All of a checkpoint that decides what comes next."""
    one, other = load_checkpoint(first), load_checkpoint(second)
    for name in ("state_dict", "optimizer_states", "epoch", "global_step"):
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)
    measured = [checkpoint["callbacks"]["Measuring"]["train"] for checkpoint in (one, other)]
    torch.testing.assert_close(*measured, rtol=0, atol=0)
    assert order_state(one) == order_state(other)
    assert random_states(one) == random_states(other)


def order_state(checkpoint: dict[str, Any]) -> list[dict[str, int]]:
    return checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]


def random_states(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    states = checkpoint["callbacks"]["RandomState"]["states"]
    return [{name: one.tolist() if torch.is_tensor(one) else one for name, one in state.items()} for state in states]


def curves(run: Path) -> dict[str, Any]:
    found = json.loads((run / "results.json").read_text())["curves"]
    return {tag: found[tag] for tag in ("accuracy", "loss")}


def assert_same_run(whole: Path, resumed: Path) -> None:
    assert_identical(whole / "checkpoints" / "last.ckpt", resumed / "checkpoints" / "last.ckpt")
    assert curves(whole) == curves(resumed)
    first, second = (json.loads((run / "results.json").read_text())["test"] for run in (whole, resumed))
    assert first == second
