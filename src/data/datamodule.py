"""MNIST as a LightningDataModule: held in memory as uint8, scaled and normalised on the device."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor

from src.data.batches import Batch, GlobalBatches
from src.data.images import SIZE, ImageFile, read_images
from src.data.source import fetch_mnist, read_mnist
from src.errors import UserError

MEAN, STD = 0.1307, 0.3081  # of the training pixels, scaled to 0…1


class MNISTDataModule(LightningDataModule):
    """The MNIST handwritten digits: 60,000 images to train on, 10,000 to test.

    Args:
        data_dir: Folder of the data; MNIST is fetched into it where it is missing.
        batch_size: Images in a global batch, over all devices.
        val_size: Training images held out for validation, in equal shares of each digit. With 0 the
            test images are the validation set, as published; choose no epoch by it then.
        normalize: Subtract the mean 0.1307 and divide by the standard deviation 0.3081; pixels are 0…1 otherwise.
        seed: Fixes the order of the training images and which ones are held out.
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
        seed: int = 0,
        images: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["images"])
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; it must be at least 1.")
        if not 0 <= val_size < 60_000:
            raise UserError(f"val_size is {val_size}; it must be 0 … 59,999 of the 60,000 training images.")
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.val_size = val_size
        self.normalize = normalize
        self.seed = seed
        self.images = images
        self.files: list[ImageFile] = []  # what became of `images`, after the setup of "predict"

    def prepare_data(self) -> None:
        """Fetch what is missing and verify what is there (called by one process of each machine)."""
        if self.trainer is not None and self.batch_size < self.trainer.world_size:
            raise UserError(
                f"batch_size is {self.batch_size}, less than the {self.trainer.world_size} devices that share it."
            )
        if self.images is None:
            fetch_mnist(self.data_dir)

    def setup(self, stage: str) -> None:
        """Read the images that `stage` needs: "fit", "validate", "test" or "predict"."""
        if stage == "predict" and self.images is not None:
            self.files = self.files or read_images(self.images)
            read = [file.image_HW for file in self.files if file.image_HW is not None]
            images_NHW = torch.stack(read) if read else torch.empty(0, SIZE, SIZE, dtype=torch.uint8)
            self.test = images_NHW, torch.zeros(len(read), dtype=torch.long)
            return
        if stage == "fit" or (stage == "validate" and self.val_size):
            images, labels = read_mnist(self.data_dir, "train")
            held_out = stratified_sample(labels, self.val_size, self.seed)
            self.train = images[~held_out], labels[~held_out]
            self.val = images[held_out], labels[held_out]
        if stage in ("test", "predict") or not self.val_size:
            self.test = read_mnist(self.data_dir, "t10k")
            if not self.val_size:
                self.val = self.test

    def train_dataloader(self) -> GlobalBatches:
        # Lightning's `overfit_batches` stands for the same few batches in every epoch.
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return self._batches(*self.train, seed=None if overfit else self.seed)

    def val_dataloader(self) -> GlobalBatches:
        return self._batches(*self.val)

    def test_dataloader(self) -> GlobalBatches:
        return self._batches(*self.test)

    def predict_dataloader(self) -> GlobalBatches:
        return self._batches(*self.test)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Scale to 0…1 and normalise, on the device: a byte a pixel is all that was transferred."""
        x_NCHW = batch.images.unsqueeze(1).float().div_(255)
        if self.normalize:
            x_NCHW.sub_(MEAN).div_(STD)
        return batch._replace(images=x_NCHW)

    def _batches(self, images: Tensor, labels: Tensor, **kwargs: Any) -> GlobalBatches:
        if self.trainer is not None:
            kwargs.update(rank=self.trainer.global_rank, world_size=self.trainer.world_size)
        return GlobalBatches(images, labels, self.batch_size, **kwargs)


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
