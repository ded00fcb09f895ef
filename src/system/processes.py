"""Communication between the processes that share one training or prediction."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def gather(value: T) -> list[T]:
    """Collect one value from each process, in the order of the ranks.

    Collective: it waits for the values of the other processes, so every process must call it.
    """
    if not dist.is_initialized():
        return [value]
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def gather_shares(shares: list[Tensor]) -> Tensor:
    """Join what the devices computed for their shares of the batches. Collective, see `gather`.

    Args:
        shares: (n, K) for each batch: one row for each image in the share of this device.

    Returns:
        (N, K), in the order of the images.
    """
    in_order = [share for batch in zip(*gather(shares), strict=True) for share in batch]
    return torch.cat(in_order) if in_order else torch.empty(0, 10)


def pick_by_rank(values: list[T]) -> list[T]:
    """Choose, from values that `gather` collected before a restart, those that this process takes over.

    With the same number of processes this is the value of its rank. With fewer it may be several, with more none.
    """
    if not dist.is_initialized():
        return values
    return values[dist.get_rank() :: dist.get_world_size()]


def kill_launched_processes(launcher: Any) -> None:
    """Kill the processes of the other devices that Lightning's launcher has started from this one, if any."""
    for process in getattr(launcher, "procs", []):
        process.kill()
