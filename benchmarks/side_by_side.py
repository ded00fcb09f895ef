"""Two trainings at a time with a share of the threads each, against one by one with all of them.

``python -m benchmarks.side_by_side lenet5``
"""

import argparse
import tempfile
import time
from pathlib import Path

from src.training.side_by_side import Job, run_side_by_side


def seconds(network: str, n_processes: int, steps: int) -> float:
    """The time of two trainings, from the start of Python to the end of the test, which has two batches."""
    limits = [f"--trainer.limit_{name}_batches={size}" for name, size in (("train", steps), ("val", 2), ("test", 2))]
    with tempfile.TemporaryDirectory() as folder:
        words = ["fit", f"--config=configs/{network}.yaml", "--trainer.max_epochs=1", *limits]
        words += [f"--trainer.default_root_dir={Path(folder)}", "--trainer.enable_progress_bar=false"]
        started = time.perf_counter()
        jobs = [Job(f"seed {seed}", [*words, f"--seed_everything={seed}"]) for seed in (0, 1)]
        assert not run_side_by_side(jobs, n_processes, "")
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=["lenet5", "cnn"])
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    ratios = []
    for pair in range(given.pairs):
        times = {n: seconds(given.network, n, given.steps) for n in ((1, 2) if pair % 2 == 0 else (2, 1))}
        ratios.append(times[2] / times[1])
        print(
            f"one after the other {times[1]:.1f} s, two at a time {times[2]:.1f} s, ratio {ratios[-1]:.2f}", flush=True
        )
    print(f"{given.network}: mean ratio {sum(ratios) / len(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
