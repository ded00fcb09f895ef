"""Networks as people publish them: ordinary LightningModules, which import nothing of this package."""

from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR
from torchmetrics.classification import MulticlassAccuracy


class PyTorchExample(LightningModule):
    """The older form of pytorch/examples/mnist: `view` after a convolution, log-probabilities, Adadelta, StepLR."""

    channels_last = True  # means something of this network's own; with such weights, `view` would fail

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.conv2_drop = nn.Dropout2d()
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
        x = x.view(-1, 320)
        x = F.dropout(F.relu(self.fc1(x)), training=self.training)
        return F.log_softmax(self.fc2(x), dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.nll_loss(self(x), y)
        self.log("train_ce", loss, on_step=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", F.nll_loss(self(x), y))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("test_loss", F.nll_loss(self(x), y))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adadelta(self.parameters(), lr=1.0)
        return [optimizer], [StepLR(optimizer, step_size=1, gamma=0.7)]


class LitClassifier(LightningModule):
    """Lightning's example of a backbone with saved hyperparameters, metrics and a `predict_step` of its own."""

    def __init__(self, hidden: int = 32, learning_rate: float = 1e-3, weights: str | None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.l1 = nn.Linear(784, hidden)
        self.l2 = nn.Linear(hidden, 10)
        self.val_metrics = MulticlassAccuracy(10)

    def forward(self, x: Tensor) -> Tensor:
        return self.l2(torch.relu(self.l1(x.view(x.size(0), -1))))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.val_metrics(self(x), y)
        self.log("val_accuracy", self.val_metrics)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("test_loss", F.cross_entropy(self(x), y))

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0]).argmax(dim=1)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams["learning_rate"])


class Unsaved(LightningModule):
    """Has arguments that it does not save, a tuple as output in training, and a longer OneCycleLR than the training."""

    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, width), activation, nn.BatchNorm1d(width))
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(width, 10))

    def forward(self, x: Tensor) -> Any:
        features = self.body(x)
        logits = self.head(features)
        return (logits, features) if self.training else logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        logits, features = self(x)
        return F.cross_entropy(logits, y) + 1e-4 * features.pow(2).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = OneCycleLR(optimizer, max_lr=0.1, total_steps=10_000)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class LeNet5(LitClassifier):
    """Has the name of a network of this package."""


class Probabilities(LitClassifier):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(dim=1)
