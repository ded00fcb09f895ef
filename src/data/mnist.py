"""The data module of MNIST, of its relatives and of data sets in its format."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from src.data.batches import GlobalBatches
from src.data.datamodule import ImageDataModule, Split
from src.data.family import HANDWRITTEN_AS_MNIST, Dataset, class_names, fetch_relative, read_relative
from src.data.pictures import SIZE, ImageFile, read_images
from src.data.source import Split as FileSplit
from src.data.source import fetch_mnist, read_mnist, read_other
from src.system.errors import UserError

MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels, scaled to 0…1
FILES: dict[Split, FileSplit] = {"train": "train", "test": "t10k"}  # the splits in the names of the files


class MNISTDataModule(ImageDataModule):
    """The MNIST handwritten digits (60,000 training and 10,000 test images), or another data set in the same format.

    Args:
        data_dir: Folder of the data. What isn't there is downloaded.
        batch_size: Number of images in a global batch, over all devices. Evaluation on GPUs takes at least 1,000 images
            for each device at once.
        val_size: Number of training images held out for validation, stratified by class. With 0, validation
            uses the test images, as in the published comparison; don't select epochs by it then.
        normalize: Subtract the mean of the training pixels and divide by their standard deviation. MNIST's, also used
            for `classes`, are 0.1307 and 0.3081. Without it the pixels are in 0…1.
        max_shift: In each epoch, shift each training image vertically and horizontally at random, by up to this many
            pixels.
        max_rotation: In each epoch, rotate each training image by a random angle up to this one, in degrees.
        max_scaling: Multiply the size of each training image by a random factor; 0.1 means 0.9 … 1.1.
        max_shear: Shear each training image horizontally by a random angle up to this one, in degrees.
        elastic: Move the pixels of each training image by smooth random displacements with this standard deviation,
            in pixels (see `src.data.distortion`).
        seed: Seed of the order of the training images and of the choice of the held-out images. By default that of the
            training, ``--seed_everything``, and 0 without the command line.
        classes: Names of the classes of another data set, in the order of their labels. Its four files belong in
            `data_dir` itself, and nothing is downloaded. By default, those of `dataset`.
        dataset: MNIST or one of its relatives, in the folder of `data_dir` that torchvision uses.

    Attributes:
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
        seed: int | None = None,
        classes: Sequence[str | int | float | bool] | None = None,
        dataset: Dataset = "mnist",
    ) -> None:
        super().__init__(
            batch_size, val_size, normalize, max_shift, max_rotation, max_scaling, max_shear, elastic, seed
        )
        if any(isinstance(name, bool) for name in classes or []):
            raise UserError(
                f"classes is {classes}: YAML reads words such as yes, no, on and off so. Put them in quotes."
            )
        if classes is not None and len({*map(str, classes)}) < max(2, len(classes)):
            raise UserError(f"classes is {classes}; it must be two or more different names.")
        if classes is not None and dataset != "mnist":
            raise UserError(f"classes names those of your own files, so it can't be used with dataset {dataset}.")
        self.data_dir = Path(data_dir)
        self.dataset = dataset
        self.own_files = classes is not None
        self.is_mnist = dataset == "mnist" and not self.own_files
        self.classes = list(map(str, classes)) if classes else class_names(dataset)
        if dataset == "mnist":
            self.mean, self.std = MEAN, STD
        if not self.own_files:
            self.shape = (1, SIZE, SIZE)
        self.images: list[str] | None = None
        self.files: list[ImageFile] = []  # the files that `images` names, read by setup("predict")

    def load(self, split: Split) -> tuple[Tensor, Tensor]:
        if self.own_files:
            return read_other(self.data_dir, FILES[split])
        if self.is_mnist:
            return read_mnist(self.data_dir, FILES[split])
        return read_relative(self.data_dir, self.dataset, FILES[split])

    def prepare_data(self) -> None:
        """Download missing files and verify the others. Lightning calls it in one process of each machine."""
        splits = [FILES[split] for split in self.splits]
        if self.images is None and self.is_mnist:
            fetch_mnist(self.data_dir, splits)
        elif self.images is None and not self.own_files:
            fetch_relative(self.data_dir, self.dataset, splits)
        super().prepare_data()

    def setup(self, stage: str) -> None:
        """Read the images for `stage`: "fit", "validate", "test" or "predict"."""
        if stage != "predict" or self.images is None:
            super().setup(stage)
            return
        if self.dataset not in HANDWRITTEN_AS_MNIST:
            raise UserError(f"Pictures are read as MNIST's digits were, and this does not fit {self.dataset}.")
        self.files = self.files or read_images(self.images)
        readable = [file.image_HW for file in self.files if file.image_HW is not None]
        images_NHW = torch.stack(readable) if readable else torch.empty(0, SIZE, SIZE, dtype=torch.uint8)
        self.test = images_NHW, torch.zeros(len(readable), dtype=torch.long)

    def predict_dataloader(self) -> GlobalBatches:
        if self.images is not None and self.shape not in (None, (1, SIZE, SIZE)):  # from the checkpoint
            raise UserError(f"Pictures are read as 28×28 grey pixels; this network takes (C, H, W) = {self.shape}.")
        return super().predict_dataloader()
