"""A network small enough to be trained in seconds."""

from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from src.models import Classifier


class Tiny(Classifier):
    def __init__(self, width: int = 0, dropout: float = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        hidden = [nn.Linear(784, width), nn.ReLU()] if width else []
        masks = [nn.Dropout(dropout)] if dropout else []
        self.network = nn.Sequential(nn.Flatten(), *hidden, *masks, nn.Linear(width or 784, 10))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.network(x_NCHW)


class Plateau(Tiny):
    """Lowers its learning rate where the validation loss stays."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.parameters())
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


class WithParts(Tiny):
    """Takes a class and an instance as arguments."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU, layer: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(784, 16), activation(), layer or nn.Linear(16, 10))
