"""The plain convolutional network with dropout of the published comparison."""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from src.models.classifier import Classifier, glorot_uniform
from src.models.dropout import Dropout


class CNN(Classifier):
    """Two 3×3 convolutions, one max-pooling and dropout: 1,199,882 parameters."""

    channels_last = True  # 5 to 20 % faster on the CPU, with the same results

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Pooling before ReLU gives the same result as after it, with a quarter of the work.
        self.network = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 32, kernel_size=3),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 64, kernel_size=3),
                pool=nn.MaxPool2d(2),
                relu2=nn.ReLU(),
                dropout1=Dropout(0.25),
                flatten=nn.Flatten(),
                dense1=nn.Linear(64 * 12 * 12, 128),
                relu3=nn.ReLU(),
                dropout2=Dropout(0.5),
                dense2=nn.Linear(128, 10),
            )
        )
        self.network.apply(glorot_uniform)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) to logits (N, 10)."""
        return self.network(x_NCHW)
