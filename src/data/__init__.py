"""MNIST: where it comes from, the order of batches, pictures from elsewhere, the LightningDataModule."""

from src.data.batches import Batch, GlobalBatches
from src.data.datamodule import MNISTDataModule
from src.data.pictures import ImageFile

__all__ = ["Batch", "GlobalBatches", "ImageFile", "MNISTDataModule"]
