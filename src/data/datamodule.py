"""The base of all data modules. Images stay uint8 in memory and are scaled and normalised on the device."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningDataModule
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from src.data.batches import Batch, GlobalBatches, RawBatch
from src.data.distortion import Distortion
from src.system.errors import UserError

# Pixels in a batch of evaluation on a GPU, where each batch costs the time of its launch: 1,000 images of MNIST.
# The CPU is faster with batches that fit its cache: CNN takes 1.8 times as long with 1,000 images as with 128.
EVALUATION_PIXELS = {"cuda": 784_000, "mps": 784_000}

Split = Literal["train", "test"]


class ImageDataModule(LightningDataModule, ABC):
    """Images that fit into memory, with exact splits, order, batches and resume, and augmentation on the device.

    A subclass defines `load`. It may set `classes`, `mean` and `std`, in the class, in `__init__` or in `load`.

    Args:
        batch_size: Number of images in a global batch, over all devices. Evaluation on GPUs takes more at once.
        val_size: Number of training images held out for validation, stratified by class. With 0, validation uses the
            test images; don't select epochs by it then.
        normalize: Subtract `mean` and divide by `std`. Without it the pixels are in 0…1.
        max_shift: In each epoch, shift each training image vertically and horizontally at random, by up to this many
            pixels.
        max_rotation: In each epoch, rotate each training image by a random angle up to this one, in degrees.
        max_scaling: Multiply the size of each training image by a random factor; 0.1 means 0.9 … 1.1.
        max_shear: Shear each training image horizontally by a random angle up to this one, in degrees.
        elastic: Move the pixels of each training image by smooth random displacements with this standard deviation,
            in pixels (see `src.data.distortion`). What these five move into an image is black.
        seed: Seed of the order of the training images and of the choice of the held-out images. By default that of the
            training, ``--seed_everything``, and 0 without the command line.

    Attributes:
        classes: Names of the classes, in the order of their labels. Without names they are "0", "1" and so on.
        mean: Of the pixels, scaled to 0…1: one number, or one for each channel. By default, and `std` likewise, that of
            all training images. Checkpoints contain it.
        std: Standard deviation of the pixels, scaled to 0…1.
        shape: (C, H, W) of the images, known after `setup` or from a checkpoint.
        train, val, test: Images, uint8 (N, H, W) or (N, C, H, W), and labels (N,). Set by `setup`.

    Raises:
        UserError: A setting is out of range, or does not fit the images.
    """

    classes: list[str] = []
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    shape: tuple[int, ...] | None = None

    def __init__(
        self,
        batch_size: int = 128,
        val_size: int = 0,
        normalize: bool = True,
        max_shift: int = 0,
        max_rotation: float | None = None,
        max_scaling: float | None = None,
        max_shear: float | None = None,
        elastic: float | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)  # with the arguments of the subclass
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1.")
        if max_shift < 0:
            raise UserError(f"max_shift is {max_shift}; it must be at least 0.")
        self.batch_size = batch_size
        self.val_size = val_size
        self.normalize = normalize
        self.max_shift = max_shift
        distortion = Distortion(max_rotation or 0, max_scaling or 0, max_shear or 0, elastic or 0)
        self.distortion = None if distortion == Distortion() else distortion
        self.seed = seed
        self.splits: tuple[Split, ...] = ("train", "test")  # that `prepare_data` checks
        self._loaded: dict[Split, tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def load(self, split: Split) -> tuple[Any, Any]:
        """Return all images and labels of "train" or "test", as tensors, arrays or lists. It is called once for each.

        Returns:
            Images as uint8, (N, H, W) or (N, C, H, W), and labels (N,), whole numbers from 0.
        """

    def prepare_data(self) -> None:
        """Check the settings, and the data before a training. Lightning calls it in one process of each machine."""
        if self.trainer is not None and self.batch_size < self.trainer.world_size:
            raise UserError(
                f"batch_size is {self.batch_size}; it must be at least {self.trainer.world_size}, one per device."
            )
        if self.trainer is None or self.trainer.state.fn == "fit":
            for split in self.splits:
                self._read(split)

    def setup(self, stage: str) -> None:
        """Load the images for `stage`: "fit", "validate", "test" or "predict"."""
        if stage == "fit" or (stage == "validate" and self.val_size):
            self.train = images, labels_N = self._read("train")
            if self.val_size:
                held_out_N = stratified_sample(labels_N, self.val_size, self.seed or 0)
                self.train = images[~held_out_N], labels_N[~held_out_N]
                self.val = images[held_out_N], labels_N[held_out_N]
        if stage in ("test", "predict") or not self.val_size:
            self.test = self._read("test")
            if not self.val_size:
                self.val = self.test

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs to evaluate its network without the training images."""
        mean, std = (None if one is None else np.asarray(one, float).tolist() for one in (self.mean, self.std))
        return {"classes": list(self.classes), "mean": mean, "std": std, "shape": self.shape}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take from a checkpoint what is not known yet. Lightning calls it after `setup`."""
        for name, value in state_dict.items():
            if name in ("classes", "mean", "std", "shape") and getattr(self, name) in (None, []):
                setattr(self, name, value)

    def train_dataloader(self) -> GlobalBatches:
        # With `overfit_batches` every epoch must have the same batches, so they aren't shuffled.
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        seed = None if overfit else self.seed or 0
        return self._batches(
            *self.train, self.batch_size, seed=seed, max_shift=self.max_shift, distortion=self.distortion
        )

    def val_dataloader(self) -> GlobalBatches:
        return self._evaluation_batches(*self.val)

    def test_dataloader(self) -> GlobalBatches:
        return self._evaluation_batches(*self.test)

    def predict_dataloader(self) -> GlobalBatches:
        return self._evaluation_batches(*self.test)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if isinstance(batch, RawBatch):
            return batch  # `_batches` has moved all images
        return super().transfer_batch_to_device(batch, device, dataloader_idx)  # such as `example_input_array`

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Shift, distort, scale to 0…1 and normalise on the device. So the transfer needs only one byte per pixel.

        Returns:
            The pair of images (N, C, H, W), in the precision of the Trainer, and labels (N,).
        """
        if not isinstance(batch, RawBatch):
            return batch if self.trainer is None else self.trainer.precision_plugin.convert_input(batch)
        images_NCHW = with_channels(batch.images)
        if batch.shifts_N2 is not None:
            images_NCHW = shift(images_NCHW, batch.shifts_N2, self.max_shift)
        if self.distortion is not None and batch.random_NP is not None:
            images_NCHW = self.distortion(images_NCHW, batch.random_NP)
        x_NCHW = self.preprocess(images_NCHW)
        if self.trainer is not None:  # Lightning has converted the batch before, when its images were uint8
            x_NCHW = self.trainer.precision_plugin.convert_input(x_NCHW)
        return Batch((x_NCHW, batch.labels_N), batch.weight)

    def preprocess(self, images: Tensor) -> Tensor:
        """Scale raw images, (N, H, W) or (N, C, H, W) in 0…255, to 0…1 and normalise them: the input of a network.

        Returns:
            float32 (N, C, H, W).
        """
        x_NCHW = with_channels(images).to(torch.float32, copy=True).div_(255)
        if not self.normalize:
            return x_NCHW
        if self.mean is None or self.std is None:
            self.mean, self.std = pixel_statistics(self._read("train")[0])
        mean, std = (
            value if isinstance(value, int | float) else torch.tensor(value).view(-1, 1, 1)
            for value in (self.mean, self.std)
        )
        mean, std = move_data_to_device((mean, std), x_NCHW.device)  # without waiting for a GPU
        return x_NCHW.sub_(mean).div_(std)

    def _read(self, split: Split) -> tuple[Tensor, Tensor]:
        """Load a split at the first call, and check it."""
        if split not in self._loaded:
            if split == "test" and not self.classes:
                self._read("train")  # its labels decide how many classes there are
            known = self.classes
            images, labels_N = map(torch.as_tensor, self.load(split))
            if known and self.classes != known:
                raise UserError(f"{type(self).__name__}.load({split!r}) has the classes {self.classes}, not {known}.")
            self._check(images, labels_N, split)
            self._loaded[split] = images, labels_N.long()
        return self._loaded[split]

    def _check(self, images: Tensor, labels_N: Tensor, split: Split) -> None:
        """Raise a `UserError` for images or labels that do not fit each other, the settings or the other split."""
        where = f"{type(self).__name__}.load({split!r})"
        channels_last = images.ndim == 4 and images.shape[3] <= 4 < images.shape[1]
        if images.dtype != torch.uint8 or images.ndim not in (3, 4) or not images.numel() or channels_last:
            raise UserError(
                f"{where} must return images as uint8, (N, H, W) or (N, C, H, W); it returned "
                f"{str(images.dtype).removeprefix('torch.')}, {tuple(images.shape)}."
            )
        if labels_N.shape != images.shape[:1] or labels_N.is_floating_point():
            raise UserError(
                f"{where} must return a whole number for each of {len(images):,} images; it returned "
                f"{str(labels_N.dtype).removeprefix('torch.')}, {tuple(labels_N.shape)}."
            )
        if not self.classes:
            self.classes = [str(label) for label in range(int(labels_N.max()) + 1)]
        K = len(self.classes)
        if wrong := labels_N[(labels_N < 0) | (labels_N >= K)].tolist():
            raise UserError(f"{where} has the label {wrong[0]}; with {K} classes, labels are 0 … {K - 1}.")
        shape = tuple(with_channels(images).shape[1:])
        if self.shape not in (None, shape):
            raise UserError(f"{where} has images of shape {shape}, but the others have {self.shape} (C, H, W).")
        self.shape = shape
        if self.max_shift >= min(shape[1:]):
            raise UserError(f"max_shift is {self.max_shift}; it must be 0 … {min(shape[1:]) - 1} pixels.")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, Sequence) and len(value) != shape[0]:
                raise UserError(f"{name} has {len(value)} values, but the images have {shape[0]} channels.")
        if split == "train" and not 0 <= self.val_size < len(images):
            n_train = len(images)
            raise UserError(
                f"val_size is {self.val_size}; it must be 0 … {n_train - 1:,} of the {n_train:,} training images."
            )

    def _evaluation_batches(self, images: Tensor, labels_N: Tensor) -> GlobalBatches:
        if self.trainer is None:
            return self._batches(images, labels_N, self.batch_size)
        pixels = EVALUATION_PIXELS.get(self.trainer.strategy.root_device.type, 0)
        smallest = pixels // with_channels(images)[0].numel() * self.trainer.world_size if len(images) else 0
        return self._batches(images, labels_N, max(self.batch_size, smallest))

    def _batches(self, images: Tensor, labels_N: Tensor, batch_size: int, **kwargs: Any) -> GlobalBatches:
        """Move the images to the device, 55 MB for all of MNIST, and divide them into batches."""
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            images, labels_N = images.to(device), labels_N.to(device)
            kwargs.update(rank=self.trainer.global_rank, world_size=self.trainer.world_size)
        return GlobalBatches(images, labels_N, batch_size, **kwargs)


def names_of_classes(data: LightningDataModule, K: int) -> list[str]:
    """Names of the K classes: those of a data module that names as many, or else "0", "1" and so on."""
    names = getattr(data, "classes", None)
    return list(map(str, names if isinstance(names, list) and len(names) == K else range(K)))


def with_channels(images: Tensor) -> Tensor:
    """Return images as (N, C, H, W), with one channel if they have none."""
    return images.unsqueeze(1) if images.ndim == 3 else images


def shift(images_NCHW: Tensor, shifts_N2: Tensor, max_shift: int) -> Tensor:
    """Shift each image down and right by its own number of pixels, at most `max_shift`, and fill with 0."""
    padded = F.pad(images_NCHW, (max_shift,) * 4)
    N, _, H, W = images_NCHW.shape
    windows = padded.unfold(2, H, 1).unfold(3, W, 1)  # a view, (N, C, 2 max_shift + 1, 2 max_shift + 1, H, W)
    down_N, right_N = (max_shift - shifts_N2).unbind(dim=1)
    return windows[torch.arange(N, device=images_NCHW.device), :, down_N, right_N]


def pixel_statistics(images: Tensor) -> tuple[Any, Any]:
    """Mean and standard deviation of uint8 images, scaled to 0…1, from exact counts: the same on every machine.

    Returns:
        Two numbers for one channel, or two lists with a number for each. A constant channel has the deviation 1.
    """
    means, deviations = [], []
    for channel in with_channels(images).unbind(dim=1):
        counts, n_pixels = torch.bincount(channel.flatten()).tolist(), channel.numel()
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value**2 * count for value, count in enumerate(counts))
        means.append(total / n_pixels / 255)
        deviations.append(math.sqrt(n_pixels * squares - total**2) / n_pixels / 255 or 1.0)
    return (means[0], deviations[0]) if len(means) == 1 else (means, deviations)


def stratified_sample(labels_N: Tensor, size: int, seed: int) -> Tensor:
    """Choose `size` images, from each class in proportion to its size (to within one image).

    Returns:
        (N,) bool, True for the chosen images. It is a pure function of the arguments.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels_N))
    by_class = shuffled[np.argsort(labels_N.numpy()[shuffled], kind="stable")]
    evenly_spaced = np.arange(size) * len(labels_N) // max(size, 1)
    chosen_N = torch.zeros(len(labels_N), dtype=torch.bool)
    chosen_N[by_class[evenly_spaced]] = True
    return chosen_N
