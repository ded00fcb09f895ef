"""The LeNet-5 of 1998, 60,000 parameters, as an ordinary LightningModule that imports nothing from `src`.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proc. IEEE 86(11), 1998. Sections, tables and equations below are those of the paper. Train it with

    python -m src fit --config examples/lenet5_1998.yaml
"""

from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

# Table I: each column is a map of C3, each row a map of S2 that it takes as input (X) or does not.
TABLE_I = """
X . . . X X X . . X X X X . X X
X X . . . X X X . . X X X X . X
X X X . . . X X X . . X . X X X
. X X X . . X X X X . . X . X X
. . X X X . . X X X X . X X . X
. . . X X X . . X X X X . X X X
"""
# The outputs of F6 that stand for each digit: a bitmap of 7×12 pixels, +1 for # and -1 for a dot, as in Fig. 3.
CODES = """
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
..###.. ...##.. .#####. ####### ##..... ####### ...###. ####### .#####. .#####.
.##.##. ..###.. ##...## .....## ##..##. ##..... ..##... ##...## ##...## ##...##
##...## .####.. ##...## ....##. ##..##. ##..... .##.... .....## ##...## ##...##
##...## ...##.. .....## ...##.. ##..##. ##..... ##..... ....##. ##...## ##...##
##...## ...##.. ....##. .#####. ##..##. ######. ######. ....##. .#####. ##...##
##...## ...##.. ...##.. .....## ####### .....## ##...## ...##.. ##...## .######
##...## ...##.. ..##... .....## ....##. .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## ....##.
.##.##. ...##.. ##..... ##...## ....##. ##...## ##...## ..##... ##...## ...##..
..###.. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .###...
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""
# Section III-B: the learning rate of each of the 20 passes, relative to that of the first one.
SCHEDULE = [1.0] * 2 + [0.4] * 3 + [0.2] * 3 + [0.1] * 4 + [0.02] * 8


def squash(x: Tensor) -> Tensor:
    """The sigmoid of all layers up to F6: equation (6), with the constants of Appendix A."""
    return 1.7159 * torch.tanh(2 / 3 * x)


class Subsampling(nn.Module):
    """S2, S4: add the pixels of each 2×2 square, multiply by the coefficient of the map, add the bias of the map."""

    def __init__(self, n_maps: int) -> None:
        super().__init__()
        self.coefficient_C11 = nn.Parameter(torch.empty(n_maps, 1, 1).uniform_(-2.4 / 4, 2.4 / 4))
        self.bias_C11 = nn.Parameter(torch.empty(n_maps, 1, 1).uniform_(-2.4 / 4, 2.4 / 4))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        pairs_NCHW = x_NCHW[..., ::2, :] + x_NCHW[..., 1::2, :]  # on a CPU, twice as fast as avg_pool2d
        sums_NCHW = pairs_NCHW[..., ::2] + pairs_NCHW[..., 1::2]
        return sums_NCHW * self.coefficient_C11 + self.bias_C11


class PartialConvolution(nn.Module):
    """C3: a 5×5 convolution that has a kernel for each X of Table I, and no others."""

    maps_P: Tensor  # the map of C3 that each of the 60 kernels belongs to
    inputs_P: Tensor  # the map of S2 that it is applied to

    def __init__(self) -> None:
        super().__init__()
        table_IO = torch.tensor([[mark == "X" for mark in row.split()] for row in TABLE_I.strip().split("\n")])
        maps_P, inputs_P = table_IO.T.nonzero(as_tuple=True)
        self.register_buffer("maps_P", maps_P, persistent=False)
        self.register_buffer("inputs_P", inputs_P, persistent=False)
        fan_in_O = 25 * table_IO.sum(dim=0)
        self.kernels_P55 = nn.Parameter(torch.empty(60, 5, 5).uniform_(-2.4, 2.4) / fan_in_O[maps_P, None, None])
        self.bias_O = nn.Parameter(torch.empty(16).uniform_(-2.4, 2.4) / fan_in_O)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        weight_OIHW = self.kernels_P55.new_zeros(16, 6, 5, 5)
        weight_OIHW = weight_OIHW.index_put((self.maps_P, self.inputs_P), self.kernels_P55)
        return F.conv2d(x_NCHW, weight_OIHW, self.bias_O)


class LeNet5_1998(LightningModule):  # noqa: N801
    """LeNet-5, Section II-B, trained with Adam.

    The authors train with one image at a time, and with a learning rate for each parameter, from an estimate of its
    second derivative (Section III-B, Appendix C). Adam too has a step size for each parameter.

    Args:
        lr: Learning rate of the first pass.
        rejection: The constant j of equation (9).
    """

    codes_KF: Tensor

    def __init__(self, lr: float = 2e-3, rejection: float = 10.0) -> None:
        super().__init__()
        self.lr = lr
        self.rejection = rejection
        self.c1 = nn.Conv2d(1, 6, kernel_size=5)
        self.s2 = Subsampling(6)
        self.c3 = PartialConvolution()
        self.s4 = Subsampling(16)
        self.c5 = nn.Linear(16 * 5 * 5, 120)  # a convolution of 5×5 pixels with kernels of that size
        self.f6 = nn.Linear(120, 84)
        for layer in (self.c1, self.c5, self.f6):  # Appendix A: uniform, within 2.4 / fan-in
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -2.4 / layer.weight[0].numel(), 2.4 / layer.weight[0].numel())
        rows = [row.split() for row in CODES.strip().split("\n")]
        rows_HKW = torch.tensor([[[1.0 if p == "#" else -1.0 for p in bitmap] for bitmap in row] for row in rows])
        self.register_buffer("codes_KF", rows_HKW.transpose(0, 1).flatten(1), persistent=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map images (N, 1, 28, 28) in 0…1 to logits (N, 10), the negative outputs of the RBF units."""
        x_NCHW = F.pad(x_NCHW, (2, 2, 2, 2)) * 1.275 - 0.1  # white is -0.1 and black 1.175
        x_NCHW = squash(self.s2(squash(self.c1(x_NCHW))))
        x_NCHW = squash(self.s4(squash(self.c3(x_NCHW))))
        x_NF = squash(self.f6(squash(self.c5(x_NCHW.flatten(1)))))
        return -(x_NF[:, None] - self.codes_KF).square().sum(dim=2)  # equation (7)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x_NCHW, labels_N = batch
        logits_NK = self(x_NCHW)
        # Equation (9) is the cross-entropy with one more class, whose RBF unit has the constant output j.
        return F.cross_entropy(F.pad(logits_NK, (0, 1), value=-self.rejection), labels_N)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])  # loss and accuracy are measured from the outputs of `forward`

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        return [optimizer], [LambdaLR(optimizer, lambda epoch: SCHEDULE[min(epoch, 19)])]
