"""What it saves to take numbers near zero for zero: `python -m benchmarks.denormals [--pairs 3]`.

One epoch of LeNet5 in batches of 8, on one thread, with and without `torch.set_flush_denormal`, in turn.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

USUAL = "from src.cli.main import main; main()"
WITHOUT = f"import torch; torch.set_flush_denormal = lambda on: True; {USUAL}"
ARGS = ["fit", "--config=configs/lenet5-one-epoch.yaml", "--data.batch_size=8", "--trainer.enable_progress_bar=false"]
LIMITS = ["--trainer.limit_val_batches=2", "--trainer.limit_test_batches=2"]


def train(script: str) -> tuple[float, dict[str, torch.Tensor]]:
    """Returns: the seconds of the training, and its weights."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*ARGS, *LIMITS, f"--trainer.default_root_dir={folder}"]
        subprocess.run(
            [sys.executable, "-c", script, *words],
            check=True,
            capture_output=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        (results,) = Path(folder).rglob("results.json")
        weights = torch.load(next(Path(folder).rglob("last.ckpt")), weights_only=True)["state_dict"]
        return json.loads(results.read_text())["train_seconds"], weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    for pair in range(parser.parse_args().pairs):
        found = {script: train(script) for script in ((USUAL, WITHOUT) if pair % 2 else (WITHOUT, USUAL))}
        (usual, weights), (without, others) = found[USUAL], found[WITHOUT]
        same = all(torch.equal(weights[name], others[name]) for name in weights)
        print(f"{usual:.1f} s, without {without:.1f} s, ratio {usual / without:.2f}; same weights: {same}", flush=True)


if __name__ == "__main__":
    main()
