"""A training from beginning to end: logger, callbacks, fit, test.

`src.cli.main` builds data, network and Trainer from the command line. What the Trainer of a training is given, and in
which order, is listed here. To add a callback to all trainings, add it to `training_callbacks`.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer

from src.data import MNISTDataModule
from src.models import Classifier
from src.runs.folder import Run
from src.system.errors import UserError
from src.tensorboard.logger import RunLogger
from src.training.callbacks import Curves, RunSummary
from src.training.randomness import RandomState
from src.training.stopping import Stopping


def run_logger(runs_folder: Path, run: Run | None = None) -> RunLogger:
    """The logger of a new run in `runs_folder`, or of the run to resume."""
    folder = run.folder.parent if run else runs_folder
    return RunLogger(str(folder.parent), folder.name, run.folder.name if run else None)


def training_callbacks(
    save_every_n_steps: int, save_every_n_minutes: float, save_epochs: bool, save_best: bool
) -> list[Callback]:
    """The callbacks of every training, in the order in which Lightning calls them.

    Args:
        save_every_n_steps: Steps between saves inside an epoch, 0 for none.
        save_every_n_minutes: Minutes between saves inside an epoch, 0 for none.
        save_epochs: Whether to save last.ckpt after each epoch.
        save_best: Whether to save best.ckpt too, the epoch with the highest validation accuracy.
    """
    timer = Timer()
    callbacks = [timer, RandomState(), Curves(), RunSummary(timer), Stopping(save_every_n_steps, save_every_n_minutes)]
    if save_epochs and save_best:
        # Before the last one, so that last.ckpt contains its state.
        callbacks.append(
            BestCheckpoint(filename="best", enable_version_counter=False, monitor="val_accuracy", mode="max")
        )
    if save_epochs:
        callbacks.append(LastCheckpoint(filename="last", enable_version_counter=False, save_on_train_epoch_end=True))
    return callbacks


class BestCheckpoint(ModelCheckpoint):
    """A class of its own, so that its state is not mixed up with that of a ModelCheckpoint of the user."""


class LastCheckpoint(ModelCheckpoint):
    """A class of its own, see `BestCheckpoint`."""


def train(trainer: Trainer, network: Classifier, data: MNISTDataModule, ckpt_path: str | None) -> None:
    """Train a network, from a checkpoint if given, then test its last weights. `RunSummary` stores the result."""
    _check_number_of_outputs(network, data)
    with _locked_run_folder(trainer):
        trainer.fit(network, datamodule=data, ckpt_path=ckpt_path)
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
