"""A training from beginning to end: the Trainer, fit, test.

`src.cli.main` builds data and network from the command line. This module builds the Trainer and lists what it gets, and
in which order. To add a callback to all trainings, add it to `training_callbacks`.
"""

import atexit
import inspect
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import Namespace
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar, Timer, WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, ReduceLROnPlateau, SaveConfigCallback, instantiate_class
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR

from src.data import MNISTDataModule
from src.models import Classifier
from src.runs.checkpoints import CLASS_PATH, INSTANTIATOR, CheckedCheckpointIO, Checkpoint
from src.runs.folder import Run, runs_folder
from src.runs.trust import foreign_argument
from src.system.errors import UserError
from src.system.processes import cluster_environment, limit_waiting, refuse_other_processes
from src.tensorboard.logger import RunLogger
from src.training.callbacks import Curves, Progress, RunSummary, SavedSettings, WriteAnswers, print_weights
from src.training.measuring import Measuring
from src.training.randomness import RandomState
from src.training.resuming import DoubleWeights, Resuming
from src.training.stopping import LastCheckpoint, Stopping
from src.training.unsupported import refuse_no_batches, refuse_unsupported, refuse_unsupported_strategy


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
    built.tensorboard.measuring = measuring = Measuring()  # first, so that all others see the values of the epoch
    all_callbacks = [measuring, *user_callbacks, built.tensorboard, *_progress(settings)]
    all_callbacks += [*training_callbacks(built, save_best, checkpoint), *callbacks]
    all_callbacks.append(SavedSettings(yaml.safe_load(parser.dump(config, skip_unset=False))))
    use_optimizer(built.model, built)
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
    callbacks = [Measuring(), *as_list(settings.callbacks), *_progress(settings), WriteAnswers(config.ckpt_path)]
    return _trainer(config, settings, checkpoint, logger=False, callbacks=callbacks)


def training_callbacks(built: Namespace, save_best: bool, checkpoint: Checkpoint | None) -> list[Callback]:
    """The callbacks of every training, in the order in which Lightning calls them. See `training_trainer`."""
    timer = Timer(duration=built.trainer.max_time)
    resuming = Resuming(checkpoint.first_step if checkpoint else 0)
    stopping = Stopping(built.save_every_n_steps, built.save_every_n_minutes)
    callbacks = [timer, resuming, RandomState(), Curves(), WriteAnswers(), RunSummary(timer), stopping]
    if built.trainer.enable_checkpointing is not False and not built.trainer.barebones:
        # The best one first, so that last.ckpt contains its state.
        callbacks += [BestCheckpoint(), LastCheckpoint()] if save_best else [LastCheckpoint()]
    return callbacks


def as_list(value: Any) -> list[Any]:
    """Return a setting that may be nothing, one object or a list as a list."""
    return [] if value is None else value if isinstance(value, list) else [value]


def _progress(settings: Namespace) -> list[Callback]:
    has_bar = any(isinstance(callback, ProgressBar) for callback in as_list(settings.callbacks))
    return [] if has_bar or settings.enable_progress_bar is False or settings.barebones else [Progress()]


def _trainer(config: Namespace, settings: Namespace, checkpoint: Checkpoint | None, **options: Any) -> Trainer:
    """Build the Trainer, with this package's plugins, and see that its processes end with it."""
    refuse_unsupported_strategy(config.trainer.strategy)
    plugins, environment = [*as_list(settings.plugins), CheckedCheckpointIO(checkpoint)], cluster_environment()
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


def use_optimizer(network: LightningModule, built: Namespace) -> None:
    """Give a network the optimiser and the schedule of ``--optimizer`` and ``--lr_scheduler``, if they are set.

    Raises:
        UserError: A schedule has no optimiser, or settings of a `Classifier` contradict them.
    """
    optimizer, schedule = built.get("optimizer"), built.get("lr_scheduler")
    if optimizer is None:
        if schedule is not None:
            raise UserError("--lr_scheduler needs an --optimizer, such as --optimizer SGD --optimizer.lr 0.1")
        return
    if isinstance(network, Classifier):
        for name in ("lr", "eps", "betas", "schedule"):
            parameters = inspect.signature(Classifier).parameters | inspect.signature(type(network)).parameters
            value = network.hparams.get(name, parameters[name].default)
            if (tuple(value) if isinstance(value, list) else value) != parameters[name].default:  # LightningCLI: a list
                raise UserError(f"--model.{name} is a setting of Adam, which --optimizer replaces: leave it out.")

    def configure_optimizers() -> Any:
        made = instantiate_class(filter(lambda parameter: parameter.requires_grad, network.parameters()), optimizer)
        if schedule is None:
            return made
        scheduler = instantiate_class(made, schedule)
        per_step = isinstance(scheduler, OneCycleLR | CyclicLR)
        options = {"monitor": scheduler.monitor} if isinstance(scheduler, ReduceLROnPlateau) else {}
        interval = "step" if per_step else "epoch"
        return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": interval} | options}

    network.configure_optimizers = configure_optimizers  # type: ignore[method-assign]


class BestCheckpoint(ModelCheckpoint):
    """Writes ``best.ckpt``. A class of its own, beside a ModelCheckpoint of the user."""

    def __init__(self) -> None:
        super().__init__(filename="best", enable_version_counter=False, monitor="val_accuracy", mode="max")


def fit(trainer: Trainer, network: LightningModule, data: MNISTDataModule, ckpt_path: str | None) -> None:
    """Train a network, from a checkpoint if given."""
    trainer.fit(network, datamodule=data, ckpt_path=ckpt_path)
    if trainer.global_step == 0:
        raise UserError("The training ended before its first step: --trainer.max_steps or --trainer.max_time is 0.")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging):
            # Takes the averaged weights. Lightning doesn't, in a training that is resumed after its last step.
            callback.on_train_end(trainer, network)


def train(
    trainer: Trainer, network: LightningModule, data: MNISTDataModule, checkpoint: Checkpoint | None = None
) -> None:
    """Train a network, from a checkpoint if given, then test its last weights. `RunSummary` stores the result."""
    check_network(network, len(data.classes))
    with _run_folder(trainer, checkpoint.first_step if checkpoint else 0):
        fit(trainer, network, data, str(checkpoint.path) if checkpoint else None)
        if trainer.limit_test_batches == 0:
            if trainer.is_global_zero:
                print(f"{type(network).__name__} was trained, but not tested: --trainer.limit_test_batches is 0.")
            print_weights(trainer)
            return
        trainer.test(network, datamodule=data, verbose=False)


def check_network(network: LightningModule, n_classes: int) -> None:
    """Raise a `UserError` for a network that cannot be trained, before anything is written.

    Args:
        network: It classifies two images, in evaluation mode.
        n_classes: The number of classes in the data set.
    """
    name = type(network).__name__
    if isinstance(network, Classifier) and not hasattr(network, "is_measured"):
        raise UserError(f"{name}.__init__ must call super().__init__(**kwargs).")
    if any(is_lazy(parameter) for parameter in network.parameters()):
        raise UserError(f"{name} has lazy layers, whose sizes are not known yet. Use layers with sizes.")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"{name} has no trainable parameters.")
    arguments = {key: value for key, value in network.hparams.items() if key not in (CLASS_PATH, INSTANTIATOR)}
    if foreign := foreign_argument(type(network), arguments):
        raise UserError(
            f"{name} was given {foreign}, and only classes of torch modules can be read again from a checkpoint. "
            "Give a subclass of nn.Module, such as torch.nn.ReLU, or a string that your network looks up."
        )
    modes = {module: module.training for module in network.modules()}
    logits_NK = network.eval()(torch.zeros(2, 1, 28, 28).to(network.dtype))
    for module, mode in modes.items():
        module.training = mode
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
    if (logits_NK >= 0).all() and torch.allclose(logits_NK.sum(dim=1), torch.ones(2, dtype=logits_NK.dtype), atol=1e-3):
        raise UserError(f"{name}.forward returns probabilities. It must return logits: leave out the softmax.")


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
