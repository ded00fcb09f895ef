"""A training whose loss is NaN or infinite ends, and keeps the checkpoint from before."""

from pathlib import Path
from typing import Any

import pytest
import torch

from src.models import Classifier
from src.runs.checkpoints import load_checkpoint
from tests.conftest import RunCLI
from tests.training.conftest import SHORT


@pytest.mark.parametrize("model", ["LeNet5", "CNN"])
def test_a_loss_that_is_no_number_ends_the_run(cli: RunCLI, model: str) -> None:
    outcome = cli("fit", f"--model={model}", "--model.lr=1e18", *SHORT)
    assert outcome.code == 1
    assert "The loss is NaN or infinite: epoch 1, step 2, learning rate 1e+18." in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("where", ["training_step", "validation_step"])
def test_the_checkpoint_before_a_diverged_loss_is_kept(
    cli: RunCLI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    step: Any = getattr(Classifier, where)
    finished_steps = {"training_step": 11, "validation_step": 16}[where]

    def diverge(self: Classifier, batch: Any, batch_idx: int) -> Any:
        if self.global_step == finished_steps:
            batch = (batch[0] * torch.nan, *batch[1:])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, where, diverge)
    outcome = cli("fit", "--model=LeNet5", *SHORT)
    assert outcome.code == 1
    named_step = {"training_step": 12, "validation_step": 16}[where]
    assert f"The loss is NaN or infinite: epoch 2, step {named_step}, learning rate 0.001." in outcome.err
    assert "Traceback" not in outcome.err
    kept = load_checkpoint(tmp_path / "lightning_logs" / "lenet5" / "version_0" / "checkpoints" / "last.ckpt")
    assert kept["global_step"] == 8
    assert all(weights.isfinite().all() for weights in kept["state_dict"].values())
