"""The base class of the networks: loss, metrics, optimiser, schedule."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from src.data import Batch
from src.models import Classifier
from src.training.metrics import EpochMetrics


class Linear(Classifier):
    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.dense = nn.Linear(784, 10)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return self.dense(x_NCHW.flatten(1))


def test_metrics_agree_with_torchmetrics_over_uneven_batches() -> None:
    ours, loss, accuracy = EpochMetrics(), MeanMetric(), MulticlassAccuracy(10, average="micro")
    errors = 0
    for size in (128, 128, 96, 0, 1):
        logits_NK, labels_N = torch.randn(size, 10), torch.randint(10, (size,))
        ours.update(logits_NK, labels_N)
        if size:
            loss.update(F.cross_entropy(logits_NK, labels_N), weight=size)
            accuracy.update(logits_NK, labels_N)
            errors += int((logits_NK.argmax(1) != labels_N).sum())
    result = ours.compute()
    assert result["loss"].item() == pytest.approx(loss.compute().item(), rel=1e-5)
    assert result["accuracy"].item() == pytest.approx(accuracy.compute().item(), rel=1e-6)
    assert (result["errors"].item(), result["images"].item()) == (errors, 353)


def test_training_step_returns_the_mean_cross_entropy() -> None:
    model = Linear()
    x_NCHW, labels_N = torch.randn(7, 1, 28, 28), torch.randint(10, (7,))
    loss = model.training_step((x_NCHW, labels_N), 0)
    assert loss.item() == pytest.approx(F.cross_entropy(model(x_NCHW), labels_N).item(), rel=1e-6)


def test_label_smoothing_is_part_of_the_training_loss() -> None:
    model = Linear(label_smoothing=0.1)
    x_NCHW, labels_N = torch.randn(7, 1, 28, 28), torch.randint(10, (7,))
    log_probabilities_NK = model(x_NCHW).log_softmax(dim=1)
    targets_NK = 0.9 * F.one_hot(labels_N, 10) + 0.01
    loss = model.training_step((x_NCHW, labels_N), 0)
    assert loss.item() == pytest.approx(-(targets_NK * log_probabilities_NK).sum().item() / 7, rel=1e-6)


def test_gradient_of_shares_is_that_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    x_NCHW, labels_N = torch.randn(10, 1, 28, 28), torch.randint(10, (10,))
    whole = Linear()
    F.cross_entropy(whole(x_NCHW), labels_N).backward()
    gradients = []
    for share in (slice(0, 3), slice(3, 6), slice(6, 10)):  # three devices
        device = Linear()
        device.load_state_dict(whole.state_dict())
        batch = Batch((x_NCHW[share], labels_N[share]), weight=3 / 10)
        device.on_train_batch_start(batch, 0)
        device.training_step(tuple(batch), 0).backward()  # type: ignore[arg-type]  # a plain tuple, as DDP on GPUs makes
        gradients.append(device.dense.weight.grad)
    averaged = torch.stack([gradient for gradient in gradients if gradient is not None]).mean(dim=0)
    torch.testing.assert_close(averaged, whole.dense.weight.grad)


def test_optimiser_is_adam_with_the_settings_of_the_network() -> None:
    """The first step of Adam is lr · g / (|g| + eps), by its definition (Kingma and Ba, 2015)."""
    model = Linear(lr=0.01, eps=0.5)
    model.trainer = Trainer(accelerator="cpu", logger=False)
    model.is_measured = True  # it logs nothing then
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    before = model.dense.weight.detach().clone()
    model.training_step((torch.randn(7, 1, 28, 28), torch.randint(10, (7,))), 0).backward()
    optimizer.step()
    gradient = model.dense.weight.grad
    assert gradient is not None
    torch.testing.assert_close(model.dense.weight, before - 0.01 * gradient / (gradient.abs() + 0.5))


def test_published_optimiser_settings_are_the_defaults() -> None:
    assert dict(Linear().hparams) == {
        "lr": 1e-3,
        "eps": 1e-7,
        "betas": (0.9, 0.999),
        "schedule": "constant",
        "label_smoothing": None,
        "compile": False,
    }


def test_one_cycle_is_an_arc_of_cosines_over_all_steps() -> None:
    """It rises from 1/25 of the peak in 30 % of the steps, and falls to 1/10,000 of the first learning rate."""
    steps = 20
    model = Linear(lr=0.5, betas=(0.8, 0.9), schedule="one_cycle")
    model.trainer = Trainer(logger=False)
    with mock.patch.object(Trainer, "estimated_stepping_batches", steps):
        configured: Any = model.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["betas"] == (0.8, 0.9)
        optimizer.step()
        scheduler.step()
    top = 0.3 * steps - 1
    x = np.arange(steps)
    up, down = x / top, (x - top) / (steps - 1 - top)
    first, peak, last = 0.02, 0.5, 2e-6
    expected = np.where(
        x <= top,
        first + (peak - first) * (1 - np.cos(np.pi * up)) / 2,
        last + (peak - last) * (1 + np.cos(np.pi * down)) / 2,
    )
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_predict_gives_probabilities() -> None:
    model = Linear()
    x_NCHW = torch.randn(5, 1, 28, 28)
    probabilities_NK = model.predict_step((x_NCHW, torch.zeros(5)), 0)
    exp = model(x_NCHW).double().exp()
    torch.testing.assert_close(probabilities_NK.double(), exp / exp.sum(dim=1, keepdim=True), rtol=1e-5, atol=1e-6)
