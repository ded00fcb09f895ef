"""MNIST and data sets in its format: download, order of batches, pictures of your own, LightningDataModule."""

from src.data.batches import GlobalBatches, RawBatch
from src.data.datamodule import MNISTDataModule
from src.data.pictures import ImageFile

__all__ = ["GlobalBatches", "ImageFile", "MNISTDataModule", "RawBatch"]
