"""Callbacks, checkpoints and the TensorBoard logger."""

from src.training.logger import RunLogger

__all__ = ["RunLogger"]
