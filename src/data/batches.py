"""The order of the images: global batches, divided among the devices."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from src.data.distortion import Distortion
from src.system.errors import UserError


class Batch(tuple[Tensor, Tensor]):
    """The pair that a step gets, ``x_NCHW, labels_N = batch``, with the weight of each image as an attribute.

    `weight` times the sum of the share's losses, averaged over the devices as DDP does, is the mean loss over the
    global batch. So all images count equally, even if the shares differ in size by one. A mean loss that ignores it
    is the same where all shares have the same size.

    Read `weight` in a hook such as `on_train_batch_start`. On GPUs, DDP may rebuild tuples as plain ones before it
    calls `training_step`: older versions of torch do; newer ones keep a tuple whose tensors are on the device already.
    Functions that rebuild a tuple from its elements keep the class, but not the weight.

    Args:
        pair: Images (N, C, H, W) and labels (N,).
        weight: Number of devices / number of images in the global batch.
    """

    weight: float | None

    def __new__(cls, pair: Iterable[Tensor], weight: float | None = None) -> "Batch":
        batch = super().__new__(cls, pair)
        batch.weight = weight
        return batch


class RawBatch(NamedTuple):
    """The share of one device in a global batch, before the images are scaled. For `weight` see `Batch`."""

    images: Tensor  # uint8, (N, H, W) or (N, C, H, W)
    labels_N: Tensor  # int64
    weight: float  # number of devices / number of images in the global batch
    shifts_N2: Tensor | None = None  # int64: pixels by which each image is shifted down and right
    random_NP: Tensor | None = None  # float32: the random numbers of each image's distortion


@dataclass(eq=False, repr=False)
class GlobalBatches:
    """A loader for a data set in memory. The order of its batches is a pure function of (seed, epoch).

    Global batch b is slice b of that order, for any number of devices. Device `rank` of `world_size` gets a
    contiguous share of each batch. The last batch may be shorter, and a share of it may be empty. Lightning
    accepts any iterable as a loader. This one indexes tensors; a DataLoader would collate single images,
    which takes many times as long. The tensors may be on a GPU: then only the order is copied, once an epoch.
    """

    images: Tensor  # uint8, (N, H, W) or (N, C, H, W)
    labels_N: Tensor  # int64
    batch_size: int  # images in a global batch
    seed: int | None = None  # shuffles, with a new order in each epoch; None keeps the order of the data set
    max_shift: int = 0  # draws shifts of -max_shift … max_shift pixels for each image in each epoch
    distortion: Distortion | None = None  # draws its random numbers for each image in each epoch
    rank: int = 0  # of this device
    world_size: int = 1  # number of devices

    batch_sampler = None  # Lightning reads this attribute of every loader that has a `sampler`

    def __post_init__(self) -> None:
        self.epoch = 0
        self.position = 0  # batches yielded in this epoch
        self.restored: dict[str, int] | None = None

    @property
    def sampler(self) -> "GlobalBatches":
        """Return this object. Lightning calls `set_epoch` of the sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch. Lightning calls it before each epoch."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return the position in the epoch. Lightning saves it in the checkpoint."""
        return {"epoch": self.epoch, "position": self.position, "batch_size": self.batch_size}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Start the next iteration at the saved position, if it is in the same epoch."""
        self.restored = state_dict

    def __len__(self) -> int:
        return -(-len(self.labels_N) // self.batch_size)

    def __iter__(self) -> Iterator[RawBatch]:
        # As a generator it starts with the first batch: Lightning calls iter() before set_epoch().
        n_images, device = len(self.labels_N), self.labels_N.device
        order_N = shifts_N2 = None
        random = np.random.default_rng((self.seed or 0, self.epoch))
        if self.seed is not None:
            order_N = torch.from_numpy(random.permutation(n_images)).to(device)
        if self.max_shift:
            drawn = random.integers(-self.max_shift, self.max_shift, (n_images, 2), endpoint=True)
            shifts_N2 = torch.from_numpy(drawn).to(device)
        restored, self.restored = self.restored, None
        first = 0
        if restored and restored["epoch"] == self.epoch and restored["position"]:
            first, size = restored["position"], restored.get("batch_size", self.batch_size)  # older checkpoints lack it
            if size != self.batch_size:
                raise UserError(
                    f"The checkpoint was saved inside an epoch of batches of {size} images, so batch_size cannot be "
                    f"{self.batch_size}. Use its batch size, or a checkpoint from the end of an epoch."
                )
        for number in range(first, len(self)):
            self.position = (number + 1) % len(self)
            start = number * self.batch_size
            size = min(self.batch_size, n_images - start)
            begin, end = (start + size * rank // self.world_size for rank in (self.rank, self.rank + 1))
            share = slice(begin, end)
            index = share if order_N is None else order_N[share]
            random_NP = None
            if self.distortion is not None:
                random = np.random.default_rng((self.seed or 0, self.epoch, number))
                random_NP = self.distortion.draw(random, size, *self.images.shape[-2:])[begin - start : end - start]
                random_NP = move_data_to_device(random_NP, device)  # a GPU copies it while this process goes on
            yield RawBatch(
                self.images[index],
                self.labels_N[index],
                self.world_size / size,
                None if shifts_N2 is None else shifts_N2[share],
                random_NP,
            )
