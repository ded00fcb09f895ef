"""MNIST, or a data set in its format, as a LightningDataModule: kept as uint8, scaled and normalised on the device."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningDataModule
from torch import Tensor

from src.data.batches import Batch, GlobalBatches
from src.data.pictures import SIZE, ImageFile, read_images
from src.data.source import Split, fetch_mnist, read_mnist, read_other
from src.system.errors import UserError

MEAN, STD = 0.1307, 0.3081  # of the training pixels, scaled to 0…1


class MNISTDataModule(LightningDataModule):
    """The MNIST handwritten digits, 60,000 images to train on and 10,000 to test; or another data set in its format.

    Args:
        data_dir: Folder of the data; MNIST is fetched into it where it is missing.
        batch_size: Images in a global batch, over all devices.
        val_size: Training images held out for validation, in equal shares of each digit. With 0 the
            test images are the validation set, as published; choose no epoch by it then.
        normalize: Subtract the mean 0.1307 and divide by the standard deviation 0.3081; pixels are 0…1 otherwise.
            The two numbers are MNIST's and serve for any data set: they only set the scale on which training begins.
        max_shift: Move each training image at random, by up to so many pixels up or down and left or right,
            anew in each epoch.
        seed: Fixes the order of the training images and which ones are held out.
        classes: Names the classes of another data set, in the order of their labels. Its four files lie in `data_dir`
            itself and are taken as they are; nothing is fetched. By default it is MNIST, with the digits as names.
        images: Files, folders or globs of pictures to predict in place of the test images.

    Raises:
        UserError: A setting is out of range, or a data file is damaged or can't be had.
    """

    def __init__(
        self,
        data_dir: str = "data",
        batch_size: int = 128,
        val_size: int = 0,
        normalize: bool = True,
        max_shift: int = 0,
        seed: int = 0,
        classes: list[str] | None = None,
        images: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["images"])
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1.")
        if not 0 <= max_shift < 28:
            raise UserError(f"max_shift is {max_shift}; it must be 0 … 27 pixels.")
        if classes is not None and len(set(classes)) < max(2, len(classes)):
            raise UserError(f"classes is {classes}; it must name two or more, each once.")
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.val_size = val_size
        self.normalize = normalize
        self.max_shift = max_shift
        self.seed = seed
        self.is_mnist = classes is None
        self.classes = classes or [str(digit) for digit in range(10)]
        self.images = images
        self.files: list[ImageFile] = []  # what became of `images`, after the setup of "predict"

    def prepare_data(self) -> None:
        """Fetch what is missing and verify what is there (called by one process of each machine)."""
        if self.trainer is not None and self.batch_size < self.trainer.world_size:
            raise UserError(
                f"batch_size is {self.batch_size}, less than the {self.trainer.world_size} devices that share it."
            )
        if self.images is not None:
            return
        if self.is_mnist:
            fetch_mnist(self.data_dir)
        else:
            self._read("t10k")
        images = len(self._read("train")[1])
        if not 0 <= self.val_size < images:
            raise UserError(
                f"val_size is {self.val_size}; it must be 0 … {images - 1:,} of the {images:,} training images."
            )

    def setup(self, stage: str) -> None:
        """Read the images that `stage` needs: "fit", "validate", "test" or "predict"."""
        if stage == "predict" and self.images is not None:
            self.files = self.files or read_images(self.images)
            read = [file.image_HW for file in self.files if file.image_HW is not None]
            images_NHW = torch.stack(read) if read else torch.empty(0, SIZE, SIZE, dtype=torch.uint8)
            self.test = images_NHW, torch.zeros(len(read), dtype=torch.long)
            return
        if stage == "fit" or (stage == "validate" and self.val_size):
            images, labels = self._read("train")
            held_out = stratified_sample(labels, self.val_size, self.seed)
            self.train = images[~held_out], labels[~held_out]
            self.val = images[held_out], labels[held_out]
        if stage in ("test", "predict") or not self.val_size:
            self.test = self._read("t10k")
            if not self.val_size:
                self.val = self.test

    def train_dataloader(self) -> GlobalBatches:
        # Lightning's `overfit_batches` stands for the same few batches in every epoch.
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return self._batches(*self.train, seed=None if overfit else self.seed, max_shift=self.max_shift)

    def val_dataloader(self) -> GlobalBatches:
        return self._batches(*self.val)

    def test_dataloader(self) -> GlobalBatches:
        return self._batches(*self.test)

    def predict_dataloader(self) -> GlobalBatches:
        return self._batches(*self.test)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Tensor, Tensor, float]:
        """Shift, scale to 0…1 and normalise, on the device: a byte a pixel is all that was transferred.

        Returns: images (N, 1, 28, 28) float32, labels (N,), weight of an image in the step's loss.
        """
        images_NHW = batch.images if batch.shifts is None else shift(batch.images, batch.shifts, self.max_shift)
        x_NCHW = images_NHW.unsqueeze(1).float().div_(255)
        if self.normalize:
            x_NCHW.sub_(MEAN).div_(STD)
        return x_NCHW, batch.labels, batch.weight

    def _read(self, split: Split) -> tuple[Tensor, Tensor]:
        if self.is_mnist:
            return read_mnist(self.data_dir, split)
        return read_other(self.data_dir, split, len(self.classes))

    def _batches(self, images: Tensor, labels: Tensor, **kwargs: Any) -> GlobalBatches:
        if self.trainer is not None:
            kwargs.update(rank=self.trainer.global_rank, world_size=self.trainer.world_size)
        return GlobalBatches(images, labels, self.batch_size, **kwargs)


def shift(images_NHW: Tensor, shifts_N2: Tensor, most: int) -> Tensor:
    """Move each image by its own number of pixels, down and right, at most `most`; black (0) comes in."""
    padded = F.pad(images_NHW, (most, most, most, most))
    _, height, width = images_NHW.shape
    windows = padded.unfold(1, height, 1).unfold(2, width, 1)  # (N, 2 most + 1, 2 most + 1, H, W), a view
    down, right = (most - shifts_N2).unbind(dim=1)
    return windows[torch.arange(len(images_NHW), device=images_NHW.device), down, right]


def stratified_sample(labels_N: Tensor, size: int, seed: int) -> Tensor:
    """Choose `size` of the images, each class in proportion to its number (to within one image).

    Returns:
        (N,) bool, True for the chosen ones; a pure function of the arguments.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels_N))
    by_class = shuffled[np.argsort(labels_N.numpy()[shuffled], kind="stable")]
    evenly_spaced = np.arange(size) * len(labels_N) // max(size, 1)
    chosen_N = torch.zeros(len(labels_N), dtype=torch.bool)
    chosen_N[by_class[evenly_spaced]] = True
    return chosen_N
