"""A training from beginning to end: logger, callbacks, fit, test.

`src.cli.main` builds data, network and Trainer from the command line. This module lists what the Trainer gets, and in
which order. To add a callback to all trainings, add it to `training_callbacks`.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer, WeightAveraging
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment
from torch import Tensor
from torch.nn.parameter import is_lazy

from src.data import MNISTDataModule
from src.models import Classifier
from src.runs.checkpoints import CLASS_PATH, INSTANTIATOR, CheckedCheckpointIO, load_checkpoint
from src.runs.folder import Run
from src.runs.trust import foreign_argument
from src.system.errors import UserError
from src.system.processes import cluster_environment
from src.tensorboard.logger import RunLogger
from src.training.callbacks import Curves, RunSummary, print_weights
from src.training.randomness import RandomState
from src.training.resuming import Resuming
from src.training.stopping import LastCheckpoint, Stopping


def run_logger(runs_folder: Path, run: Run | None = None) -> RunLogger:
    """The logger of a new run in `runs_folder`, or of the run to resume."""
    folder = run.folder.parent if run else runs_folder
    return RunLogger(str(folder.parent), folder.name, run.folder.name if run else None)


def training_callbacks(settings: Namespace, save_best: bool) -> list[Callback]:
    """The callbacks of every training, in the order in which Lightning calls them.

    Args:
        settings: Of ``fit``.
        save_best: Whether to save best.ckpt beside last.ckpt: the epoch with the highest validation accuracy.
    """
    timer = Timer(duration=settings.trainer.max_time)
    stopping = Stopping(settings.save_every_n_steps, settings.save_every_n_minutes)
    callbacks = [timer, Resuming(), RandomState(), Curves(), RunSummary(timer), stopping]
    if settings.trainer.enable_checkpointing is not False and not settings.trainer.barebones:
        # The best one first, so that last.ckpt contains its state.
        callbacks += [BestCheckpoint(), LastCheckpoint()] if save_best else [LastCheckpoint()]
    return callbacks


def as_list(value: Any) -> list[Any]:
    """Return a setting that may be nothing, one object or a list as a list."""
    return [] if value is None else value if isinstance(value, list) else [value]


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


def fit(trainer: Trainer, network: Classifier, data: MNISTDataModule, ckpt_path: str | None) -> None:
    """Train a network, from a checkpoint if given."""
    trainer.fit(network, datamodule=data, ckpt_path=ckpt_path)
    if trainer.global_step == 0:
        raise UserError("The training ended before its first step: --trainer.max_steps or --trainer.max_time is 0.")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):
            # Takes the averaged weights. Lightning doesn't, in a training that is resumed after its last step.
            callback.on_train_end(trainer, network)


def train(trainer: Trainer, network: Classifier, data: MNISTDataModule, ckpt_path: str | None) -> None:
    """Train a network, from a checkpoint if given, then test its last weights. `RunSummary` stores the result."""
    check_network(network, len(data.classes))
    first_step = load_checkpoint(ckpt_path).get("global_step", 0) if ckpt_path else 0
    with _locked_run_folder(trainer, first_step):
        fit(trainer, network, data, ckpt_path)
        if trainer.limit_test_batches == 0:
            if trainer.is_global_zero:
                print(f"{type(network).__name__} was trained, but not tested: --trainer.limit_test_batches is 0.")
            print_weights(trainer)
            return
        trainer.test(network, datamodule=data, verbose=False)


def check_network(network: Classifier, n_classes: int) -> None:
    """Raise a `UserError` for a network that cannot be trained, before anything is written.

    Args:
        network: Nothing in it changes: a copy classifies two images.
        n_classes: The number of classes in the data set.
    """
    name = type(network).__name__
    if not hasattr(network, "train_metrics"):
        raise UserError(f"{name}.__init__ must call super().__init__(**kwargs).")
    if any(is_lazy(parameter) for parameter in network.parameters()):
        raise UserError(f"{name} has lazy layers, whose sizes are not known yet. Use layers with sizes.")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"{name} has no trainable parameters.")
    arguments = {key: value for key, value in network.hparams.items() if key not in (CLASS_PATH, INSTANTIATOR)}
    if foreign := foreign_argument(arguments):
        raise UserError(
            f"{name} was given {foreign}, and only classes of torch modules can be read again from a checkpoint. "
            "Give a subclass of nn.Module, such as torch.nn.ReLU, or a string that your network looks up."
        )
    copied = copy.deepcopy(network).eval()
    logits_NK = copied(torch.zeros(2, 1, 28, 28).to(copied.dtype))
    wanted = f"{name}.forward must return logits of shape (N, {n_classes}), a row for each image; for two images it"
    if not isinstance(logits_NK, Tensor) or not logits_NK.is_floating_point():
        kind = logits_NK.dtype if isinstance(logits_NK, Tensor) else type(logits_NK).__name__
        raise UserError(f"{wanted} returned {kind}.")
    if logits_NK.ndim != 2 or len(logits_NK) != 2:
        raise UserError(f"{wanted} returned shape {tuple(logits_NK.shape)}.")
    if logits_NK.shape[1] != n_classes:
        raise UserError(f"{name} has {logits_NK.shape[1]} outputs, but the data set has {n_classes} classes.")
    if not logits_NK.requires_grad:
        raise UserError(f"The logits of {name} do not depend on its trainable parameters.")


@contextmanager
def _locked_run_folder(trainer: Trainer, first_step: int) -> Iterator[None]:
    """Keep other trainings out of the run folder. Remove a new one if the training fails before its first step ends."""
    if not isinstance(trainer.logger, RunLogger) or not trainer.is_global_zero:
        yield
        return
    run = Run(Path(trainer.logger.log_dir))
    is_new = not run.config_file.exists()
    run.folder.mkdir(parents=True, exist_ok=True)
    with run.locked():
        try:
            yield
        except Exception:
            if is_new and trainer.global_step in (0, first_step):
                run.remove()
            raise
        finally:
            if run.is_empty:
                run.remove()
