"""The plain convolutional network with dropout of the published comparison."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from src.models.classifier import Classifier, glorot_uniform
from src.models.dropout import Dropout


class CNN(Classifier):
    """Two 3×3 convolutions, one max-pooling and dropout: 1,199,882 parameters.

    Args:
        num_classes: Number of outputs. On the command line it follows the data set.
        **kwargs: Of `Classifier`.
    """

    channels_last = True  # 5 to 20 % faster on the CPU, with the same results

    def __init__(self, num_classes: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.example_input_array = torch.zeros(1, 1, 28, 28)  # for Lightning's summary of the layers
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
                dense2=nn.Linear(128, num_classes),
            )
        )
        self.network.apply(glorot_uniform)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) to logits (N, K)."""
        return self.network(x_NCHW)
