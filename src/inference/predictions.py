"""Predictions of a trained network, gathered from all devices and written as a table."""

from pathlib import Path

from lightning import Trainer
from torch import Tensor

from src.files import replace_when_whole
from src.processes import gather_shares


def write_predictions(trainer: Trainer, shares: list[Tensor], path: Path) -> None:
    """Write image number, digit and confidence as CSV, and say so."""
    probabilities_NK = gather_shares(shares)
    if not trainer.is_global_zero:
        return
    confidence_N, digits_N = probabilities_NK.max(dim=1)
    with replace_when_whole(path) as file:
        file.write(b"image,digit,confidence\n")
        for image, (digit, confidence) in enumerate(zip(digits_N.tolist(), confidence_N.tolist(), strict=True)):
            file.write(f"{image},{digit},{confidence:.6f}\n".encode())
    print(f"{len(digits_N):,} predictions: {path}")
