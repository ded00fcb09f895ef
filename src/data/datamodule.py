"""The LightningDataModule. Images stay uint8 in memory and are scaled and normalised on the device."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningDataModule
from torch import Tensor

from src.data.batches import GlobalBatches, RawBatch
from src.data.distortion import Distortion
from src.data.pictures import SIZE, ImageFile, read_images
from src.data.source import SPLITS, Split, fetch_mnist, read_mnist, read_other
from src.system.errors import UserError

# Images in a batch of evaluation on a GPU, where each batch costs the time of its launch. The CPU is faster with
# batches that fit its cache: CNN takes 1.8 times as long with 1,000 images as with 128.
EVALUATION_BATCH = {"cuda": 1000, "mps": 1000}
MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels, scaled to 0…1


class MNISTDataModule(LightningDataModule):
    """The MNIST handwritten digits (60,000 training and 10,000 test images), or another data set in the same format.

    Args:
        data_dir: Folder of the data. If MNIST isn't there, it is downloaded.
        batch_size: Number of images in a global batch, over all devices. Evaluation on GPUs takes at least 1,000 images
            for each device at once.
        val_size: Number of training images held out for validation, stratified by class. With 0, validation
            uses the test images, as in the published comparison; don't select epochs by it then.
        normalize: Subtract MNIST's mean 0.1307 and divide by its standard deviation 0.3081, for any data set.
            Without it the pixels are in 0…1.
        max_shift: In each epoch, shift each training image vertically and horizontally at random, by up to this many
            pixels.
        max_rotation: In each epoch, rotate each training image by a random angle up to this one, in degrees.
        max_scaling: Multiply the size of each training image by a random factor; 0.1 means 0.9 … 1.1.
        max_shear: Shear each training image horizontally by a random angle up to this one, in degrees.
        elastic: Move the pixels of each training image by smooth random displacements with this standard deviation,
            in pixels (see `src.data.distortion`).
        seed: Seed of the order of the training images and of the choice of the held-out images.
        classes: Names of the classes of another data set, in the order of their labels. Its four files belong in
            `data_dir` itself, and nothing is downloaded. By default the data set is MNIST, and its classes are 0 to 9.
        images: Files, folders or globs of pictures to predict instead of the test images.

    Raises:
        UserError: A setting is out of range, or a data file is damaged or can't be obtained.
    """

    def __init__(
        self,
        data_dir: str = "data",
        batch_size: int = 128,
        val_size: int = 0,
        normalize: bool = True,
        max_shift: int = 0,
        max_rotation: float | None = None,
        max_scaling: float | None = None,
        max_shear: float | None = None,
        elastic: float | None = None,
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
            raise UserError(f"classes is {classes}; it must be two or more different names.")
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.val_size = val_size
        self.normalize = normalize
        self.max_shift = max_shift
        distortion = Distortion(max_rotation or 0, max_scaling or 0, max_shear or 0, elastic or 0)
        self.distortion = None if distortion == Distortion() else distortion
        self.seed = seed
        self.is_mnist = classes is None
        self.classes = classes or [str(digit) for digit in range(10)]
        self.images = images
        self.splits = SPLITS  # that prepare_data verifies; a search for settings leaves out the test images
        self.files: list[ImageFile] = []  # the files that `images` names, read by setup("predict")

    def prepare_data(self) -> None:
        """Download missing files and verify the others. Lightning calls it in one process of each machine."""
        if self.trainer is not None and self.batch_size < self.trainer.world_size:
            raise UserError(
                f"batch_size is {self.batch_size}; it must be at least {self.trainer.world_size}, one per device."
            )
        if self.images is not None:
            return
        if self.is_mnist:
            fetch_mnist(self.data_dir, self.splits)
            n_train = 60_000  # of verified files
        else:
            n_train, *_ = [len(self._read(split)[1]) for split in self.splits]
        if not 0 <= self.val_size < n_train:
            raise UserError(
                f"val_size is {self.val_size}; it must be 0 … {n_train - 1:,} of the {n_train:,} training images."
            )

    def setup(self, stage: str) -> None:
        """Read the images for `stage`: "fit", "validate", "test" or "predict"."""
        if stage == "predict" and self.images is not None:
            self.files = self.files or read_images(self.images)
            readable = [file.image_HW for file in self.files if file.image_HW is not None]
            images_NHW = torch.stack(readable) if readable else torch.empty(0, SIZE, SIZE, dtype=torch.uint8)
            self.test = images_NHW, torch.zeros(len(readable), dtype=torch.long)
            return
        if stage == "fit" or (stage == "validate" and self.val_size):
            images_NHW, labels_N = self._read("train")
            held_out_N = stratified_sample(labels_N, self.val_size, self.seed)
            self.train = images_NHW[~held_out_N], labels_N[~held_out_N]
            self.val = images_NHW[held_out_N], labels_N[held_out_N]
        if stage in ("test", "predict") or not self.val_size:
            self.test = self._read("t10k")
            if not self.val_size:
                self.val = self.test

    def train_dataloader(self) -> GlobalBatches:
        # With `overfit_batches` every epoch must have the same batches, so they aren't shuffled.
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        seed = None if overfit else self.seed
        return self._batches(
            *self.train, self.batch_size, seed=seed, max_shift=self.max_shift, distortion=self.distortion
        )

    def val_dataloader(self) -> GlobalBatches:
        return self._evaluation_batches(*self.val)

    def test_dataloader(self) -> GlobalBatches:
        return self._evaluation_batches(*self.test)

    def predict_dataloader(self) -> GlobalBatches:
        return self._evaluation_batches(*self.test)

    def transfer_batch_to_device(self, batch: RawBatch, device: torch.device, dataloader_idx: int) -> RawBatch:
        return batch  # `_batches` has moved all images

    def on_after_batch_transfer(self, batch: RawBatch, dataloader_idx: int) -> tuple[Tensor, Tensor, float]:
        """Shift, distort, scale to 0…1 and normalise on the device. So the transfer needs only one byte per pixel.

        Returns:
            Images (N, 1, 28, 28) as float32, labels (N,), and the weight of each image in the loss of the step.
        """
        images_NHW = batch.images_NHW
        if batch.shifts_N2 is not None:
            images_NHW = shift(images_NHW, batch.shifts_N2, self.max_shift)
        if self.distortion is not None and batch.random_NP is not None:
            images_NHW = self.distortion(images_NHW, batch.random_NP)
        return self.preprocess(images_NHW), batch.labels_N, batch.weight

    def preprocess(self, images_NHW: Tensor) -> Tensor:
        """Scale raw images, (N, 28, 28) in 0…255, to 0…1 and normalise them: the input of a network, (N, 1, 28, 28)."""
        x_NCHW = images_NHW.unsqueeze(1).float().div_(255)
        return x_NCHW.sub_(MEAN).div_(STD) if self.normalize else x_NCHW

    def _read(self, split: Split) -> tuple[Tensor, Tensor]:
        if self.is_mnist:
            return read_mnist(self.data_dir, split)
        return read_other(self.data_dir, split, len(self.classes))

    def _evaluation_batches(self, images_NHW: Tensor, labels_N: Tensor) -> GlobalBatches:
        if self.trainer is None:
            return self._batches(images_NHW, labels_N, self.batch_size)
        smallest = EVALUATION_BATCH.get(self.trainer.strategy.root_device.type, 0) * self.trainer.world_size
        return self._batches(images_NHW, labels_N, max(self.batch_size, smallest))

    def _batches(self, images_NHW: Tensor, labels_N: Tensor, batch_size: int, **kwargs: Any) -> GlobalBatches:
        """Move the images to the device, 55 MB for all of MNIST, and divide them into batches."""
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            images_NHW, labels_N = images_NHW.to(device), labels_N.to(device)
            kwargs.update(rank=self.trainer.global_rank, world_size=self.trainer.world_size)
        return GlobalBatches(images_NHW, labels_N, batch_size, **kwargs)


def shift(images_NHW: Tensor, shifts_N2: Tensor, max_shift: int) -> Tensor:
    """Shift each image down and right by its own number of pixels, at most `max_shift`, and fill with 0."""
    padded = F.pad(images_NHW, (max_shift,) * 4)
    N, H, W = images_NHW.shape
    windows = padded.unfold(1, H, 1).unfold(2, W, 1)  # a view, (N, 2 max_shift + 1, 2 max_shift + 1, H, W)
    down_N, right_N = (max_shift - shifts_N2).unbind(dim=1)
    return windows[torch.arange(N, device=images_NHW.device), down_N, right_N]


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
