"""Dropout whose random mask costs less on the CPU."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """`nn.Dropout` that draws one random byte for each element, if it trains on a CPU and `p` is a multiple of 1/256.

    Elements are dropped with the same probability as by `nn.Dropout`, but the random numbers are others. In all other
    cases this is `nn.Dropout` itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        n_dropped = 256 * self.p  # of the 256 values of a byte
        possible = x.device.type == "cpu" and n_dropped in range(256)  # for example, 64.0 is, and 25.6 is not
        if not self.training or not possible or torch.compiler.is_compiling():
            return super().forward(x)
        random_bytes = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
        # In the memory layout of x, for example channels_last: other layouts would take twice the time.
        strides = torch.empty_like(x, device="meta").stride()
        kept = random_bytes.as_strided(x.shape, strides) >= n_dropped
        return x * (kept.to(x.dtype) / (1 - self.p))
