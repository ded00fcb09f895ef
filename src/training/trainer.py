"""A training from beginning to end: logger, callbacks, fit, test.

`src.cli.main` builds data, network and Trainer from the command line. What the Trainer of a training is given, and in
which order, is listed here. To add a callback to all trainings, add it to `training_callbacks`.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment

from src.data import MNISTDataModule
from src.models import Classifier
from src.runs.checkpoints import CheckedCheckpointIO
from src.runs.folder import Run
from src.system.errors import UserError
from src.system.processes import cluster_environment
from src.tensorboard.logger import RunLogger
from src.training.callbacks import Curves, RunSummary
from src.training.randomness import RandomState
from src.training.stopping import LastCheckpoint, Stopping


def run_logger(runs_folder: Path, run: Run | None = None) -> RunLogger:
    """The logger of a new run in `runs_folder`, or of the run to resume."""
    folder = run.folder.parent if run else runs_folder
    return RunLogger(str(folder.parent), folder.name, run.folder.name if run else None)


def training_callbacks(
    save_every_n_steps: int,
    save_every_n_minutes: float,
    save_epochs: bool,
    save_best: bool,
    max_time: str | timedelta | dict[str, int] | None,
) -> list[Callback]:
    """The callbacks of every training, in the order in which Lightning calls them.

    Args:
        save_every_n_steps: Steps between saves inside an epoch, 0 for none.
        save_every_n_minutes: Minutes between saves inside an epoch, 0 for none.
        save_epochs: Whether to save last.ckpt after each epoch.
        save_best: Whether to save best.ckpt too, the epoch with the highest validation accuracy.
        max_time: After this time the training ends, see Lightning's Trainer.
    """
    timer = Timer(duration=max_time)
    callbacks = [timer, RandomState(), Curves(), RunSummary(timer), Stopping(save_every_n_steps, save_every_n_minutes)]
    if save_epochs and save_best:
        callbacks.append(BestCheckpoint())  # before the last one, so that last.ckpt contains its state
    if save_epochs:
        callbacks.append(LastCheckpoint())
    return callbacks


def with_own_plugins(plugins: list[Any]) -> list[Any]:
    """Add the plugin that writes checkpoints, and under SLURM the environment without Lightning's requeue."""
    environment = cluster_environment()
    if isinstance(environment, SLURMEnvironment) and not any(isinstance(one, ClusterEnvironment) for one in plugins):
        plugins = [*plugins, environment]
    return [*plugins, CheckedCheckpointIO()]


class BestCheckpoint(ModelCheckpoint):
    """Writes ``best.ckpt``. A class of its own, beside a ModelCheckpoint of the user."""

    def __init__(self) -> None:
        super().__init__(filename="best", enable_version_counter=False, monitor="val_accuracy", mode="max")


def train(trainer: Trainer, network: Classifier, data: MNISTDataModule, ckpt_path: str | None) -> None:
    """Train a network, from a checkpoint if given, then test its last weights. `RunSummary` stores the result."""
    _check_number_of_outputs(network, data)
    with _locked_run_folder(trainer):
        trainer.fit(network, datamodule=data, ckpt_path=ckpt_path)
        if trainer.limit_test_batches == 0:
            print(f"{type(network).__name__} was trained, but not tested: --trainer.limit_test_batches is 0.")
            return
        trainer.test(network, datamodule=data, verbose=False)


def _check_number_of_outputs(network: Classifier, data: MNISTDataModule) -> None:
    copied = copy.deepcopy(network).eval()
    with torch.inference_mode():
        outputs = copied(torch.zeros(1, 1, 28, 28).to(copied.dtype)).shape[-1]
    if outputs != len(data.classes):
        name = type(network).__name__
        raise UserError(f"{name} has {outputs} outputs, but the data set has {len(data.classes)} classes.")


@contextmanager
def _locked_run_folder(trainer: Trainer) -> Iterator[None]:
    if not isinstance(trainer.logger, RunLogger) or not trainer.is_global_zero:
        yield
        return
    run = Run(Path(trainer.logger.log_dir))
    run.folder.mkdir(parents=True, exist_ok=True)
    with run.locked():
        try:
            yield
        finally:
            run.remove_if_empty()
