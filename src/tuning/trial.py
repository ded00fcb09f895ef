"""One training of a search, judged on held-out training images. It never reads the test images."""

import logging
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.memory import is_oom_error
from optuna import Trial, TrialPruned
from optuna.exceptions import OptunaError
from sqlalchemy.exc import SQLAlchemyError

from src.runs.folder import Run
from src.runs.network import follow_data_set
from src.system.errors import UserError, reason
from src.training.checks import check_network, has_images
from src.training.measuring import measuring_of
from src.training.trainer import fit, training_trainer
from src.training.unsupported import as_list, refuse_no_batches


class Pruning(Callback):
    """Reports the held-out errors to Optuna after each epoch, and ends a trial that Optuna gives up.

    Args:
        trial: The trial.
        errors: Errors of its runs with other seeds so far. The report is the mean of all.
    """

    def __init__(self, trial: Trial, errors: list[int]) -> None:
        self.trial = trial
        self.errors = errors

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        newest = measuring_of(trainer).newest
        if "val" not in newest:  # no validation in this epoch
            return
        errors = [*self.errors, newest["val"]["errors"].item()]
        step = len(self.errors) * max(trainer.max_epochs or 0, 0) + trainer.current_epoch + 1
        self.trial.report(sum(errors) / len(errors), step)
        if trainer.current_epoch + 1 != trainer.max_epochs and self.trial.should_prune():
            raise TrialPruned


def check_settings(parser: LightningArgumentParser, settings: Namespace) -> None:
    """Raise a `UserError` for settings with which trials cannot be trained or judged. Fetches the training images."""
    trainer = settings.trainer
    arguments = settings.data.init_args
    if "val_size" in arguments and arguments.val_size == 0:
        raise UserError("tune judges on held-out training images. Set their number: --data.val_size 10000")
    if settings.ckpt_path is not None or settings.resume is not None:
        raise UserError("tune takes no --ckpt_path and no --resume. To continue a search, run its command again.")
    if str(trainer.devices) != "1" or trainer.num_nodes != 1:
        raise UserError("tune trains each trial on one device. Use --jobs for several trials at once.")
    for name in ("fast_dev_run", "barebones"):
        if trainer[name]:
            raise UserError(f"tune does not work with --trainer.{name}.")
    for command in ("fit", "validate"):
        refuse_no_batches(command, trainer)
    data: Any = parser.instantiate(settings).data
    if not has_images(data, "val"):
        raise UserError(f"tune judges on held-out images: {type(data).__name__} needs a val_dataloader.")
    data.splits = ("train",)
    data.prepare_data()


def train_held_out(
    parser: LightningArgumentParser, settings: Namespace, seed: int, folder: Path, callbacks: Sequence[Callback] = ()
) -> tuple[int, int]:
    """Train a network from scratch, and count its errors in the held-out images.

    Args:
        parser: The parser of ``fit``.
        settings: Those of ``fit``.
        seed: Takes the place of the seed in `settings`.
        folder: Of the run. It must be a new one.
        callbacks: Added to those of every training.

    Returns:
        The errors of the last weights, and the number of held-out images.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no lines about devices and the last epoch
    config = parser.parse_args([f"--seed_everything={seed}"], namespace=settings.clone())
    follow_data_set(config)
    seed_everything(seed, workers=True, verbose=False)
    built: Any = parser.instantiate(config)
    network, data = built.model, built.data
    data.splits = ("train",)
    check_network(network)
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f"{folder} exists, but its search doesn't know it. Choose another --name.") from error
    built.trainer.logger = None  # that of this package
    built.trainer.enable_progress_bar = built.trainer.enable_model_summary = False
    user_callbacks = as_list(built.trainer.callbacks)
    # Checkpoints are saved only beside those of a callback of the user.
    built.trainer.enable_checkpointing = any(isinstance(callback, Checkpoint) for callback in user_callbacks)
    trainer = training_trainer(parser, config, built, save_best=False, run=Run(folder), callbacks=callbacks)
    fit(trainer, network, data, None)
    trainer.logger = None  # the curves are complete
    trainer.validate(network, datamodule=data, verbose=False)
    result = measuring_of(trainer).result("val")
    return int(result["errors"]), int(result["images"])


def describe_failure(error: Exception) -> str:
    """Why a training failed, in a line. Raises the error again if the next training would fail too."""
    if isinstance(error, OSError | OptunaError | SQLAlchemyError) or isinstance(error.__cause__, OSError):
        raise error  # a full disk, a storage that can't be reached, or TrialPruned
    if is_oom_error(error) or isinstance(error, MemoryError):
        return "out of memory"
    if not isinstance(error, UserError):
        traceback.print_exception(error)
    return reason(error)
