"""Networks and data as people publish them: ordinary Lightning, which imports nothing of this package."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, StepLR
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision.models import resnet18


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


# --- Networks of other kinds -----------------------------------------------------------------------------------------


class Steps(LightningModule):
    """Only the steps that a training needs: no `validation_step`, no `test_step`."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class ResNet(Steps):
    """ResNet18 of torchvision, with the number of channels that the images have."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.resnet = resnet18(num_classes=10)
        self.resnet.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.resnet(x)


@dataclass
class ViTConfig:
    """Sizes of a `ViT`."""

    patch: int = 7
    width: int = 16
    heads: int = 2


class ViT(Steps):
    """A small vision transformer, whose forward pass reads the size of its input in Python."""

    def __init__(self, config: ViTConfig = ViTConfig()) -> None:  # noqa: B008
        super().__init__()
        self.save_hyperparameters()
        self.embed = nn.Conv2d(1, config.width, config.patch, stride=config.patch)
        self.token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.encoder = nn.TransformerEncoderLayer(config.width, config.heads, 32, batch_first=True)
        self.head = nn.Linear(config.width, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(torch.cat([self.token.expand(len(x), -1, -1), patches], dim=1))[:, 0])


class Capsules(Steps):
    """Weights with five dimensions, routed once (S. Sabour, N. Frosst, G. Hinton, 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.primary = nn.Conv2d(1, 16, kernel_size=9, stride=6)
        self.weight = nn.Parameter(0.1 * torch.randn(1, 32, 10, 4, 8))

    def forward(self, x: Tensor) -> Tensor:
        capsules = self.primary(x).view(len(x), 32, 1, 8, 1)
        return (self.weight @ capsules).squeeze(-1).sum(dim=1).norm(dim=-1)


class Volume(Steps):
    """Takes each image as a volume of one slice."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(1, 4, (1, 5, 5), stride=(1, 4, 4)), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(4 * 6 * 6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x.unsqueeze(2)))


class TwoOptimizers(Steps):
    """Trains body and head by turns, each with its own optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.body, self.head = nn.Linear(784, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.flatten(1)).relu())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()
        return loss

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.05) for part in (self.body, self.head)]


def swish(x: Tensor) -> Tensor:
    """x σ(x)"""
    return x * x.sigmoid()


class WithFunction(Steps):
    """Takes a function as an argument."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = torch.relu) -> None:
        super().__init__()
        self.body, self.head, self.activation = nn.Linear(784, 16), nn.Linear(16, 10), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.activation(self.body(x.flatten(1))))


class WithUnused(Steps):
    """Has a layer that the forward pass does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(784, 10), nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x.flatten(1))


# --- Data ------------------------------------------------------------------------------------------------------------


class PlainData(LightningDataModule):
    """Noisy images of ten patterns, in ordinary loaders."""

    def __init__(self, folder: str = "./photos", batch_size: int = 32, channels: int = 1, side: int = 28) -> None:
        super().__init__()
        self.folder, self.batch_size, self.shape = folder, batch_size, (channels, side, side)

    def setup(self, stage: str) -> None:
        random = torch.Generator().manual_seed(0)
        patterns = torch.randn(10, *self.shape, generator=random)

        def images(n: int) -> TensorDataset:
            labels = torch.randint(10, (n,), generator=random)
            return TensorDataset(patterns[labels] + 3 * torch.randn(n, *self.shape, generator=random), labels)

        self.sets = {"train": images(330), "val": images(50), "test": images(101)}

    def train_dataloader(self) -> Any:
        return DataLoader(self.sets["train"], self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.sets["val"], self.batch_size)

    def test_dataloader(self) -> Any:
        return DataLoader(self.sets["test"], self.batch_size)


class Stateful:
    """A loader that keeps its position, as torchdata's."""

    def __init__(self, images: TensorDataset, batch_size: int) -> None:
        self.images, self.batch_size, self.done = images, batch_size, 0

    def __len__(self) -> int:
        return len(self.images) // self.batch_size

    def __iter__(self) -> Any:
        for number in range(self.done, len(self)):
            self.done = (number + 1) % len(self)
            yield self.images[number * self.batch_size : (number + 1) * self.batch_size]

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.done = state_dict["done"]


class StatefulData(PlainData):
    def train_dataloader(self) -> Any:
        return Stateful(self.sets["train"], self.batch_size)


class Untyped(PlainData):
    """Has arguments without annotations, and a seed of its own."""

    def __init__(self, folder="./photos", weights=torch.ones(10), transform=None, seed=7):  # type: ignore  # noqa: B008
        super().__init__(folder)
        self.save_hyperparameters(ignore="weights")
        self.seed = seed


class WithoutTest(LightningDataModule):
    """A training set alone, whose batches are lists."""

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.zeros(64, 1, 28, 28), torch.arange(64) % 10), batch_size=32)


class RealLabels(PlainData):
    def train_dataloader(self) -> Any:
        images, labels = self.sets["train"].tensors
        return DataLoader(TensorDataset(images, labels.float()), self.batch_size)


class Eleven(PlainData):
    def train_dataloader(self) -> Any:
        images, labels = self.sets["train"].tensors
        return DataLoader(TensorDataset(images, labels + 1), self.batch_size)
