"""Predictions of a trained network, gathered from all devices and written as a table."""

import csv
import io
from pathlib import Path

from lightning import Trainer
from torch import Tensor

from src.files import replace_when_whole
from src.processes import gather_shares


def write_predictions(trainer: Trainer, shares: list[Tensor], classes: list[str], path: Path) -> None:
    """Write image number, digit (or the name of another class) and confidence as CSV, and say so."""
    probabilities_NK = gather_shares(shares)
    if not trainer.is_global_zero:
        return
    confidence_N, digits_N = probabilities_NK.max(dim=1)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", "digit", "confidence"])
    for image, (digit, confidence) in enumerate(zip(digits_N.tolist(), confidence_N.tolist(), strict=True)):
        rows.writerow([image, classes[digit], f"{confidence:.6f}"])
    with replace_when_whole(path) as file:
        file.write(table.getvalue().encode())
    print(f"{len(digits_N):,} predictions: {path}")
