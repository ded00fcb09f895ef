"""`fit` learns what a loop without Lightning learns."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from src.data import GlobalBatches
from src.data.source import read_mnist
from src.runs.checkpoints import load_checkpoint
from tests.conftest import SHORT, RunCLI
from tests.tiny import Tiny


def test_fit_ends_with_the_weights_and_the_loss_of_a_plain_loop(
    cli: RunCLI, mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Tiny()
    monkeypatch.setattr(Tiny, "on_train_start", lambda self: network.load_state_dict(self.state_dict()))
    run = cli("fit", "--model=tests.tiny.Tiny", *SHORT, "--trainer.limit_test_batches=2", "--data.batch_size=32").run
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, eps=1e-7)
    losses = []
    for batch in islice(GlobalBatches(*read_mnist(mnist, "train"), 32, seed=0), 5):
        loss = F.cross_entropy(network((batch.images[:, None] / 255 - 0.1307) / 0.3081), batch.labels_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    saved = load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    torch.testing.assert_close(saved, dict(network.state_dict()), rtol=0, atol=1e-5)
    curves = json.loads((run / "results.json").read_text())["curves"]
    assert curves["loss"]["train"]["1"] == pytest.approx(np.mean(losses), rel=1e-5)
