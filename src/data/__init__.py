"""Images as a LightningDataModule: the base, MNIST and its relatives, order of batches, pictures of your own."""

from src.data.batches import Batch, GlobalBatches, RawBatch
from src.data.datamodule import ImageDataModule, names_of_classes, with_channels
from src.data.mnist import MNISTDataModule
from src.data.pictures import ImageFile

__all__ = [
    "Batch",
    "GlobalBatches",
    "ImageDataModule",
    "ImageFile",
    "MNISTDataModule",
    "RawBatch",
    "names_of_classes",
    "with_channels",
]
