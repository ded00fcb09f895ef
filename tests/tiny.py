"""A network small enough to be trained in seconds."""

from typing import Any

from torch import Tensor, nn

from src.models import Classifier


class Tiny(Classifier):
    def __init__(self, width: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        hidden = [nn.Linear(784, width), nn.ReLU()] if width else []
        self.network = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width or 784, 10))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.network(x_NCHW)
