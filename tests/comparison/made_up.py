"""Made-up comparisons: answers in memory, and folders of runs as `fit` leaves them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from jsonargparse import Namespace
from lightning import LightningModule

from src.comparison.result import Comparison, Contender
from src.models import CNN, LeNet5
from src.runs.answers import write_answers
from src.runs.folder import Run

CLASSES = list("0123456789")
MICROSECOND = {"median": 1.0, "low": 1.0, "high": 1.0}
TIMING = {"latency_microseconds": MICROSECOND, "images_per_second": MICROSECOND, "threads": 2}  # of a network


def results(model: str, seed: int, val_accuracy: Sequence[float]) -> dict[str, Any]:
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


def contender(
    name: str,
    trained: LightningModule,
    labels_N: np.ndarray,
    probabilities: list[np.ndarray],
    recipe: dict[str, Any] | None = None,
    val_accuracy: tuple[float, ...] = (0.98,),
) -> Contender:
    """One run for each array of probabilities; of run s the last validation accuracy is s ‰ lower."""
    runs = [Run(Path(name, str(seed))) for seed in range(len(probabilities))]
    for seed, run in enumerate(runs):
        run.__dict__["results"] = results(name, seed, [*val_accuracy[:-1], val_accuracy[-1] - 0.001 * seed])
    return Contender(name, recipe or {}, runs, trained, labels_N, np.stack(probabilities))


def compared(contenders: list[Contender], classes: list[str] = CLASSES, folder: Path = Path("nowhere")) -> Comparison:
    return Comparison(
        contenders=contenders,
        margin=10,
        images_NHW=torch.zeros(len(contenders[0].labels_N), 28, 28, dtype=torch.uint8),
        shape=(1, 28, 28),
        classes=classes,
        notes=[],
        left_out={},
        number_of_runs="",
        folder=folder,
        command=["python", "-m", "src", "compare"],
    )


def make_run(folder: Path, seed: int = 0, model: str = "LeNet5", finished: bool = True, **settings: Any) -> Path:
    """A run folder with config.yaml and results.json. Settings are named as in ``trainer__max_epochs``."""
    config: dict[str, Any] = {
        "seed_everything": seed,
        "model": {"class_path": f"src.models.{model}", "init_args": {"lr": 0.001}},
        "data": {"data_dir": str(folder), "val_size": 0},
        "trainer": {"max_epochs": 3, "default_root_dir": str(folder)},
    }
    for name, value in settings.items():
        section, key = name.split("__")
        config[section][key] = value
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if finished:
        (folder / "results.json").write_text(json.dumps(results(model, seed, [0.5, 0.9, 0.98])))
    return folder


def settings_of_fit(root: Path, class_path: str) -> Namespace:
    """Those that say where runs are."""
    return Namespace(trainer=Namespace(default_root_dir=str(root)), model=Namespace(class_path=class_path))


def make_runs(
    folder: Path, errors: Sequence[int], test_set: tuple[torch.Tensor, torch.Tensor], model: str = "LeNet5", **data: Any
) -> list[Path]:
    """Runs with so many errors each, with their answers and checkpoints."""
    images_NHW, labels_N = test_set
    network = {"LeNet5": LeNet5, "CNN": CNN}[model]()
    arguments = {"hyper_parameters": {"_class_path": f"src.models.{model}"}, "datamodule_hyper_parameters": {}}
    random = np.random.default_rng(sum(errors))
    runs = []
    for seed, n_errors in enumerate(errors):
        run = Run(make_run(folder / f"version_{seed}", seed, model, **{f"data__{k}": v for k, v in data.items()}))
        probabilities_NK = answers(labels_N.numpy(), n_errors, random, always=min(3, n_errors))
        write_answers(run.folder, torch.from_numpy(probabilities_NK), labels_N, images_NHW, CLASSES, (1, 28, 28))
        run.checkpoint.parent.mkdir()
        torch.save(arguments | {"state_dict": network.state_dict()}, run.checkpoint)
        runs.append(run.folder)
    return runs
