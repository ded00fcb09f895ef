"""What passes between the processes of one training."""

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def gather(value: T) -> list[T]:
    """The value of each process, in the order of their ranks. Every process must call this."""
    if not dist.is_initialized():
        return [value]
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def gather_shares(shares: list[Tensor]) -> Tensor:
    """Put together what each device made of its share of every batch: (N, K), in the order of the images."""
    together = [share for batch in zip(*gather(shares), strict=True) for share in batch]
    return torch.cat(together) if together else torch.empty(0, 10)


def own(values: list[T]) -> list[T]:
    """What falls to this process of a list made by `gather`: one value, if there are as many processes now as then."""
    if not dist.is_initialized():
        return values
    return values[dist.get_rank() :: dist.get_world_size()]
