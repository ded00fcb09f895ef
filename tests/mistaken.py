"""Networks with mistakes that a user makes."""

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from src.models import Classifier
from tests.tiny import Tiny


class FiveOutputs(Tiny):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(784, 5))


class MeanOfImages(Tiny):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        return super().forward(x_NCHW).mean(dim=0)


class ImagesLast(Tiny):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        return super().forward(x_NCHW).T


class ReturnsTuple(Tiny):
    def forward(self, x_NCHW: Tensor) -> Any:
        return super().forward(x_NCHW), x_NCHW


class ReturnsIntegers(Tiny):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        return super().forward(x_NCHW).long()


class Detached(Tiny):
    def forward(self, x_NCHW: Tensor) -> Tensor:
        return super().forward(x_NCHW).detach()


class Frozen(Tiny):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.requires_grad_(False)


class Lazy(Tiny):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


class ForgetsInitAndLayers(Classifier):
    def __init__(self, lr: float = 0.1) -> None:
        self.lr = lr

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return x_NCHW


class InitOfModule(Classifier):
    def __init__(self, lr: float = 0.1) -> None:
        nn.Module.__init__(self)
        self.network = nn.Linear(784, 10)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.network(x_NCHW.flatten(1))


def look_up(names: dict[str, int]) -> int:
    return names["missing"]


class FailsInOptimizers(Tiny):
    def configure_optimizers(self) -> Any:
        look_up({})


class FailsInTraining(Tiny):
    def training_step(self, *args: Any) -> Any:
        look_up({})


class FailsAfterTest(Tiny):
    def on_test_epoch_end(self) -> None:
        look_up({})


class FailingCallback(Callback):
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        look_up({})
