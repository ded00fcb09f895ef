"""MNIST: where it comes from, the order of batches, the LightningDataModule."""

from src.data.batches import Batch, GlobalBatches
from src.data.datamodule import MNISTDataModule

__all__ = ["Batch", "GlobalBatches", "MNISTDataModule"]
