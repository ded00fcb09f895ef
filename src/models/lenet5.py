"""LeNet-5, as in the published comparison."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from src.models.classifier import Classifier, glorot_uniform


class LeNet5(Classifier):
    """LeNet-5 with same padding, ReLU and max-pooling: 545,546 parameters.

    Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document
    recognition", Proc. IEEE 86(11), 1998, as modified in the published comparison.

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
                conv1=nn.Conv2d(1, 6, kernel_size=5, padding=2),
                pool1=nn.MaxPool2d(2),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(6, 16, kernel_size=5, padding=2),
                pool2=nn.MaxPool2d(2),
                relu2=nn.ReLU(),
                conv3=nn.Conv2d(16, 120, kernel_size=5, padding=2),
                relu3=nn.ReLU(),
                flatten=nn.Flatten(),
                dense1=nn.Linear(120 * 7 * 7, 84),
                relu4=nn.ReLU(),
                dense2=nn.Linear(84, num_classes),
            )
        )
        self.network.apply(glorot_uniform)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) to logits (N, K)."""
        return self.network(x_NCHW)
