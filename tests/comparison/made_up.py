"""Comparisons of made-up answers."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from src.comparison.result import Comparison, Network
from src.models import Classifier
from src.runs.folder import Run

CLASSES = list("0123456789")


def results(model: str, seed: int, val_accuracy: list[float]) -> dict[str, Any]:
    points = {str(epoch): value for epoch, value in enumerate(val_accuracy, start=1)}
    seconds = {str(epoch): 10.0 * epoch for epoch in range(1, 8)}
    return {
        "model": model,
        "parameters": 5,
        "epochs": 12,
        "seed": seed,
        "train_seconds": 60.0 + seed,
        "curves": {
            "accuracy": {"train": points, "validation": points},
            "loss": {"train": points, "validation": points},
            "epoch_seconds": {"train": seconds},
        },
    }


def answers(labels_N: np.ndarray, errors: int, random: np.random.Generator, always: int = 3) -> np.ndarray:
    """Probabilities of a run that is wrong about the first `always` images and some others."""
    N = len(labels_N)
    label_NK = np.eye(10)[labels_N]
    logits_NK = 4 * label_NK + random.normal(size=(N, 10))
    logits_NK = logits_NK - 20 * (logits_NK.argmax(1) != labels_N)[:, None] * (1 - label_NK)  # none wrong yet
    wrong = [*range(always), *random.choice(np.arange(always, N), errors - always, replace=False)]
    logits_NK[wrong, (labels_N[wrong] + 1) % 10] = 9
    return F.softmax(torch.from_numpy(logits_NK).float(), dim=1).numpy()


def network(
    name: str,
    trained: Classifier,
    labels_N: np.ndarray,
    probabilities: list[np.ndarray],
    recipe: dict[str, Any] | None = None,
    val_accuracy: tuple[float, ...] = (0.98,),
) -> Network:
    """A network with one run for each array of probabilities; of run s the last validation accuracy is s ‰ lower."""
    runs = [Run(Path(name, str(seed))) for seed in range(len(probabilities))]
    for seed, run in enumerate(runs):
        run.__dict__["results"] = results(name, seed, [*val_accuracy[:-1], val_accuracy[-1] - 0.001 * seed])
    robustness_SCS = np.stack([np.full((8, 5), 0.1 * (seed + 1)) for seed in range(len(runs))])
    return Network(name, recipe or {}, runs, trained, labels_N, np.stack(probabilities), robustness_SCS)


def compared(networks: list[Network], classes: list[str] = CLASSES, folder: Path = Path("nowhere")) -> Comparison:
    return Comparison(
        networks=networks,
        margin=10,
        images_NHW=torch.zeros(len(networks[0].labels_N), 28, 28, dtype=torch.uint8),
        classes=classes,
        notes=[],
        left_out={},
        number_of_runs="",
        folder=folder,
        command=["python", "-m", "src", "compare"],
    )
