"""Measure what TensorBoard shows beside the curves: fits of LeNet5 with all of it and without, in turn.

    OMP_NUM_THREADS=1 python -m benchmarks.tensorboard

A part is written once a run, the rest once an epoch, so fits of one epoch are compared with fits of eight. Their epochs
are short: 20 steps. All times are CPU seconds of this process, which other work on the machine hardly changes.

Printed: medians of the paired differences, their share of a run of 30 epochs and of 8, and the size of the files.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from src.cli.main import main
from src.tensorboard.board import TensorBoard

PAIRS = 5
SHORT = ("--trainer.limit_train_batches=20", "--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false")


def seconds(folder: str, epochs: int, show: bool, *limits: str) -> float:
    """CPU seconds of one fit."""
    switches = [f"--tensorboard.{name}={str(show).lower()}" for name in vars(TensorBoard())]
    where = f"--trainer.default_root_dir={folder}/{epochs}"
    started = time.process_time()
    main(["fit", "--config=configs/lenet5.yaml", where, f"--trainer.max_epochs={epochs}", *limits, *switches])
    return time.process_time() - started


if __name__ == "__main__":
    sys.argv[1:] = []
    with tempfile.TemporaryDirectory() as folder:
        seconds(folder, 1, True, *SHORT)  # imports
        of_one, of_eight = (
            [seconds(folder, epochs, True, *SHORT) - seconds(folder, epochs, False, *SHORT) for _ in range(PAIRS)]
            for epochs in (1, 8)
        )
        one, eight = np.median(of_one), np.median(of_eight)
        an_epoch = (eight - one) / 7
        epoch = seconds(f"{folder}/whole", 2, False) - seconds(f"{folder}/whole", 1, False)
        written = Path(folder).glob("8/**/version_0/t*/**/*")
        size = sum(file.stat().st_size for file in written if file.is_file())
    print(f"{one:.2f} s in a run of one epoch ({min(of_one):.2f} … {max(of_one):.2f}, {PAIRS} pairs)")
    print(f"{an_epoch:.3f} s for each further epoch ({min(of_eight):.2f} … {max(of_eight):.2f} for eight)")
    print(f"An epoch with validation takes {epoch:.1f} s: {an_epoch / epoch:.2%} more for each further epoch,")
    print(f"{(one + 29 * an_epoch) / (30 * epoch):.2%} more for 30 epochs, {eight / (8 * epoch):.2%} for 8")
    print(f"{size / 1e6:.2f} MB in a run of 8 epochs")
