"""A training from beginning to end: the Trainer, fit, test.

`src.cli.main` builds data and network from the command line. This module builds the Trainer and lists what it gets, and
in which order. To add a callback to all trainings, add it to `training_callbacks`.
"""

import atexit
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar, Timer, WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from src.data import ImageDataModule
from src.runs.checkpoints import CheckedCheckpointIO, Checkpoint, without_objects
from src.runs.folder import Run, runs_folder
from src.system.errors import UserError
from src.system.processes import cluster_environment, limit_waiting, refuse_other_processes
from src.tensorboard.logger import RunLogger
from src.training.callbacks import Curves, EpochLines, Progress, RunSummary, SavedSettings, WriteAnswers, print_weights
from src.training.checks import CheckedForward, add_evaluation_steps, check_network, has_images
from src.training.measuring import Measuring
from src.training.optimizer import use_optimizer
from src.training.randomness import RandomState
from src.training.resuming import DoubleWeights, Resuming
from src.training.stopping import LastCheckpoint, Stopping
from src.training.unsupported import as_list, refuse_no_batches, refuse_unsupported, refuse_unsupported_strategy


def training_trainer(
    parser: LightningArgumentParser,
    config: Namespace,
    built: Namespace,
    save_best: bool,
    run: Run | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """The Trainer of a training, for `fit` and for a trial of a search.

    Args:
        parser: The parser of ``fit``.
        config: Its settings, which become config.yaml.
        built: The same settings, with the objects that they describe.
        save_best: Whether to save best.ckpt beside last.ckpt: the epoch with the highest validation accuracy.
        run: The run to make or, if it has a config, to resume. By default a new one with the next free number.
        checkpoint: What the training starts from.
        callbacks: Are added to those of every training.
    """
    settings = built.trainer
    refuse_no_batches("fit", settings)
    user_callbacks = as_list(settings.callbacks)
    refuse_unsupported(settings, user_callbacks, config.ckpt_path)
    is_resumed = run is not None and run.config_file.is_file()
    plain = yaml.safe_load(parser.dump(config, skip_unset=False))
    saved = without_objects({name: plain[name] for name in ("model", "data", "optimizer", "lr_scheduler")})
    measuring, board = Measuring(), built.tensorboard
    board.measuring, board.settings = measuring, saved
    board.images = built.data if isinstance(built.data, ImageDataModule) else None
    of_checkpoint = SavedSettings(saved | {"seed_everything": built.seed_everything})
    # Measuring comes early, so that all others see the values of the epoch.
    all_callbacks = [CheckedForward(), measuring, *user_callbacks, board, *_progress(settings), of_checkpoint]
    all_callbacks += [*training_callbacks(built, save_best, checkpoint), *callbacks]
    use_optimizer(built.model, built)
    _complete(built)
    options: dict[str, Any] = {"max_time": None}  # its Timer is among the callbacks
    if settings.logger is not False and not settings.barebones:
        options["logger"] = _loggers(config, settings, run, is_resumed)
    if not (is_resumed or settings.logger is False or settings.barebones or settings.fast_dev_run):
        all_callbacks.append(SaveConfigCallback(parser, config))
    return _trainer(config, settings, checkpoint, **options, callbacks=all_callbacks)


def _loggers(config: Namespace, settings: Namespace, run: Run | None, is_resumed: bool) -> list[Logger]:
    """The loggers of the user, or by default a RunLogger. In a resumed run, a RunLogger gets its folder."""
    is_default = settings.logger in (None, True)
    loggers: list[Any] = [None] if is_default else as_list(settings.logger)
    if is_default or is_resumed:
        folder = run.folder.parent if run else runs_folder(config)
        run_logger = RunLogger(str(folder.parent), folder.name, run.folder.name if run else None)
        run_logger.is_resumed = is_resumed
        loggers = [run_logger if logger is None or isinstance(logger, RunLogger) else logger for logger in loggers]
    return loggers


def evaluation_trainer(command: str, config: Namespace, built: Namespace, checkpoint: Checkpoint | None) -> Trainer:
    """The Trainer of ``validate``, ``test`` and ``predict``. For the arguments, see `training_trainer`."""
    settings = built.trainer
    refuse_no_batches(command, settings)
    _complete(built)
    callbacks = [Measuring(), *as_list(settings.callbacks), *_progress(settings), WriteAnswers(config.ckpt_path)]
    return _trainer(config, settings, checkpoint, logger=False, callbacks=callbacks)


def _complete(built: Namespace) -> None:
    """Give network and data what they leave to the training: steps for an evaluation, and the seed."""
    add_evaluation_steps(built.model, built.data)
    if isinstance(built.data, ImageDataModule) and built.data.seed is None:
        built.data.seed = built.seed_everything


def training_callbacks(built: Namespace, save_best: bool, checkpoint: Checkpoint | None) -> list[Callback]:
    """The callbacks of every training, in the order in which Lightning calls them. See `training_trainer`."""
    timer = Timer(duration=built.trainer.max_time)
    resuming = Resuming(checkpoint.first_step if checkpoint else 0)
    stopping = Stopping(built.save_every_n_steps, built.save_every_n_minutes)
    random_state, summary = RandomState(built.seed_everything), RunSummary(timer, built.seed_everything)
    callbacks = [timer, resuming, random_state, Curves(), WriteAnswers(), summary, stopping]
    if built.trainer.enable_checkpointing is not False and not built.trainer.barebones:
        # The best one first, so that last.ckpt contains its state.
        callbacks += [BestCheckpoint(), LastCheckpoint()] if save_best else [LastCheckpoint()]
    return callbacks


def _progress(settings: Namespace) -> list[Callback]:
    has_bar = any(isinstance(callback, ProgressBar) for callback in as_list(settings.callbacks))
    if has_bar or settings.enable_progress_bar is False or settings.barebones:
        return []
    return [Progress() if sys.stdout.isatty() else EpochLines()]


def _trainer(config: Namespace, settings: Namespace, checkpoint: Checkpoint | None, **options: Any) -> Trainer:
    """Build the Trainer, with this package's plugins, and see that its processes end with it."""
    refuse_unsupported_strategy(config.trainer.strategy)
    plugins, environment = [*as_list(settings.plugins), CheckedCheckpointIO(checkpoint)], cluster_environment()
    for plugin in plugins[:-1]:
        if isinstance(plugin, CheckpointIO):
            name = type(plugin).__name__
            raise UserError(f"--trainer.plugins {name}: this package has a CheckpointIO of its own. Leave {name} out.")
    if isinstance(environment, SLURMEnvironment) and not any(isinstance(one, ClusterEnvironment) for one in plugins):
        plugins.append(environment)  # without Lightning's requeue
    limit_waiting()
    try:
        options["callbacks"].insert(0, DoubleWeights())
        trainer = Trainer(**(vars(settings) | {"plugins": plugins} | options))
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"These settings of the trainer do not work: {error}") from None
    refuse_other_processes(trainer)
    # If this process ends with an error, the processes of the other devices would wait for it forever.
    launcher: Any = trainer.strategy.launcher
    if launcher is not None:
        atexit.register(launcher.kill, getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has no SIGKILL
    return trainer


class BestCheckpoint(ModelCheckpoint):
    """Writes ``best.ckpt``. A class of its own, beside a ModelCheckpoint of the user."""

    def __init__(self) -> None:
        super().__init__(filename="best", enable_version_counter=False, monitor="val_accuracy", mode="max")


def fit(trainer: Trainer, network: LightningModule, data: LightningDataModule, ckpt_path: str | None) -> None:
    """Train a network, from a checkpoint if given."""
    trainer.fit(network, datamodule=data, ckpt_path=ckpt_path)
    if trainer.global_step == 0:
        raise UserError("The training ended before its first step: --trainer.max_steps or --trainer.max_time is 0.")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):
            # Takes the averaged weights. Lightning doesn't, in a training that is resumed after its last step.
            callback.on_train_end(trainer, network)


def train(
    trainer: Trainer, network: LightningModule, data: LightningDataModule, checkpoint: Checkpoint | None = None
) -> None:
    """Train a network, from a checkpoint if given, then test its last weights. `RunSummary` stores the result."""
    check_network(network)
    with _run_folder(trainer, checkpoint.first_step if checkpoint else 0):
        fit(trainer, network, data, str(checkpoint.path) if checkpoint else None)
        why = "--trainer.limit_test_batches is 0" if trainer.limit_test_batches == 0 else ""
        if not has_images(data, "test"):
            why = f"{type(data).__name__} has no test_dataloader"
        if why:
            if trainer.is_global_zero:
                print(f"{type(network).__name__} was trained, but not tested: {why}.")
            print_weights(trainer)
            return
        trainer.test(network, datamodule=data, verbose=False)


@contextmanager
def _run_folder(trainer: Trainer, first_step: int) -> Iterator[None]:
    """Make the run folder, and keep other trainings out of it.

    If the training ends before its first step, remove what this process has made.
    """
    logger = trainer.logger
    if not isinstance(logger, RunLogger) or not trainer.is_global_zero:
        yield
        return
    logger.make_folder()
    run = Run(Path(logger.log_dir))
    with run.locked():
        if run.is_finished:
            raise UserError(f"{run.folder} is finished. A new run needs another folder.")
        try:
            yield
        except Exception:
            if logger.has_made_folder and trainer.global_step in (0, first_step):
                run.discard()
            raise
        finally:
            if logger.has_made_folder and run.is_empty:
                run.discard()
