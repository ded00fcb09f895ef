"""Use of trained networks."""

from src.inference.predictions import write_predictions

__all__ = ["write_predictions"]
