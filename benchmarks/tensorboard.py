"""Time what TensorBoard shows beside the curves: short fits of LeNet5 with all of it and without, in turn.

    python -m benchmarks.tensorboard

All is written once a run and nothing once an epoch, so the fits are short: one epoch of 50 steps, and the
whole test. Printed: the median of the paired differences, and the size of the event files.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from src.cli.main import main
from src.tensorboard.board import TensorBoard

PAIRS = 12


def seconds(folder: str, show: bool) -> float:
    """Of one fit."""
    switches = [f"--tensorboard.{name}={str(show).lower()}" for name in vars(TensorBoard())]
    limits = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=50", "--trainer.limit_val_batches=1")
    started = time.perf_counter()
    main(["fit", "--config=configs/lenet5.yaml", f"--trainer.default_root_dir={folder}", *limits, *switches])
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.argv[1:] = []
    with tempfile.TemporaryDirectory() as folder:
        seconds(folder, show=True)  # imports
        differences = [seconds(folder, show=True) - seconds(folder, show=False) for _ in range(PAIRS)]
        sizes = [file.stat().st_size for file in Path(folder).rglob("version_0/**/events.*")]
    print(f"{np.median(differences):.2f} s a run ({min(differences):.2f} … {max(differences):.2f}, {PAIRS} pairs)")
    print(f"{sum(sizes) / 1e6:.2f} MB of events a run")
