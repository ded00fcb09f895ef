"""The order of images: global batches, shared out over devices."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    """This device's share of one global batch.

    `weight` times the sum of the share's losses, averaged over the devices as DDP does, is the mean
    loss over the global batch: so each image weighs the same, even when shares differ by one.
    """

    images: Tensor  # (N, 28, 28) uint8
    labels: Tensor  # (N,) int64
    weight: float  # devices / images in the global batch
    shifts: Tensor | None = None  # (N, 2) int64, pixels down and right by which to move each image


class GlobalBatches:
    """Batches of a data set held in memory. The order is a pure function of (seed, epoch).

    Global batch b is slice b of that order, whatever the number of devices; device `rank` of
    `world_size` takes its contiguous share of each. The last batch may be short, and a share of it
    empty. Lightning takes any iterable as a loader; this one indexes tensors, where a DataLoader would
    collate single images at many times the cost.

    Args:
        images: (N, H, W) uint8.
        labels: (N,) int64.
        batch_size: Images in a global batch.
        seed: Shuffle anew in each epoch; None keeps the order of the data set.
        max_shift: Draw shifts of -max_shift … max_shift pixels for each image, anew in each epoch.
        rank: This device's number.
        world_size: Number of devices.
    """

    batch_sampler = None  # Lightning reads it wherever there is a `sampler`

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        seed: int | None = None,
        max_shift: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.seed = seed
        self.max_shift = max_shift
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.position = 0  # batches handed out in this epoch
        self.left_at: dict[str, int] | None = None

    @property
    def sampler(self) -> "GlobalBatches":
        """This object: it has `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """The position in the epoch. Lightning keeps it in the checkpoint."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next iteration go on there, if it is in the same epoch."""
        self.left_at = state_dict

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so all is decided at the first batch: Lightning calls iter() before set_epoch().
        images = len(self.labels)
        order = shifts = None
        random = np.random.default_rng((self.seed or 0, self.epoch))
        if self.seed is not None:
            order = torch.from_numpy(random.permutation(images))
        if self.max_shift:
            shifts = torch.from_numpy(random.integers(-self.max_shift, self.max_shift, (images, 2), endpoint=True))
        left_at, self.left_at = self.left_at, None
        first = left_at["position"] if left_at and left_at["epoch"] == self.epoch else 0
        for number in range(first, len(self)):
            self.position = (number + 1) % len(self)
            start = number * self.batch_size
            size = min(self.batch_size, images - start)
            share = slice(
                start + size * self.rank // self.world_size,
                start + size * (self.rank + 1) // self.world_size,
            )
            index = share if order is None else order[share]
            yield Batch(
                self.images[index],
                self.labels[index],
                self.world_size / size,
                None if shifts is None else shifts[share],
            )
