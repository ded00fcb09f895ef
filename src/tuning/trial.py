"""One training of a search, judged on held-out training images. It never reads the test images."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.cli import LightningArgumentParser
from optuna import Trial, TrialPruned

from src.models import Classifier
from src.runs.checkpoints import CLASS_PATH
from src.runs.folder import Run
from src.system.errors import UserError
from src.training.trainer import as_list, check_network, fit, run_logger, training_callbacks, with_own_plugins
from src.training.unsupported import refuse_no_batches, refuse_unsupported


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
        assert isinstance(pl_module, Classifier)
        if not pl_module.val_metrics.update_called:  # no validation in this epoch
            return
        errors = [*self.errors, pl_module.val_metrics.compute()["errors"].item()]
        step = len(self.errors) * max(trainer.max_epochs or 0, 0) + trainer.current_epoch + 1
        self.trial.report(sum(errors) / len(errors), step)
        if trainer.current_epoch + 1 != trainer.max_epochs and self.trial.should_prune():
            raise TrialPruned(f"after epoch {trainer.current_epoch + 1} with {errors[-1]:,} errors")


def check_settings(parser: LightningArgumentParser, config: Namespace) -> None:
    """Raise a `UserError` for settings with which trials cannot be trained or judged. Fetches the training images."""
    trainer = config.trainer
    if config.data.val_size == 0:
        raise UserError("tune judges on held-out training images. Set their number: --data.val_size 10000")
    if config.ckpt_path is not None or config.resume is not None:
        raise UserError("tune takes no --ckpt_path and no --resume. To continue a search, run its command again.")
    if str(trainer.devices) != "1" or trainer.num_nodes != 1:
        raise UserError("tune trains each trial on one device. Use --jobs for several trials at once.")
    for name in ("fast_dev_run", "barebones"):
        if trainer[name]:
            raise UserError(f"tune does not work with --trainer.{name}.")
    for command in ("fit", "validate"):
        refuse_no_batches(command, trainer)
    data: Any = parser.instantiate(config).data
    data.splits = ("train",)
    data.prepare_data()


def train_held_out(
    parser: LightningArgumentParser, settings: Namespace, seed: int, folder: Path, callbacks: Sequence[Callback]
) -> tuple[int, int]:
    """Train a network, and count its errors in the held-out images. An interrupted training in `folder` is continued.

    Args:
        parser: The parser of ``fit``.
        settings: Those of ``fit``.
        seed: Takes the place of their seed.
        folder: Of the run.
        callbacks: Added to those of every training.

    Returns:
        The errors of the last weights, and the number of held-out images.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no lines about devices and the last epoch
    config = parser.parse_args([f"--seed_everything={seed}"], namespace=settings.clone())
    seed_everything(seed, workers=True, verbose=False)
    built: Any = parser.instantiate(config)
    network, data, run = built.model, built.data, Run(folder)
    network.hparams[CLASS_PATH] = config.model.class_path  # as LightningCLI does, so that `test` reads the checkpoint
    data.splits = ("train",)
    check_network(network, len(data.classes))
    run.folder.mkdir(parents=True, exist_ok=True)
    run.config_file.write_text(parser.dump(config, skip_unset=False))
    trainer = _trainer(built, folder, callbacks)
    fit(trainer, network, data, str(run.checkpoint) if run.checkpoint.is_file() else None)
    trainer.logger = None  # the curves are complete
    trainer.validate(network, datamodule=data, verbose=False)
    result = network.val_metrics.compute()
    return result["errors"].item(), result["images"].item()


def _trainer(built: Namespace, folder: Path, callbacks: Sequence[Callback]) -> Trainer:
    settings = built.trainer
    given = as_list(settings.callbacks)
    refuse_unsupported(settings, given, None)
    own = {
        "logger": run_logger(folder.parent, Run(folder)),
        "callbacks": [*training_callbacks(built, save_best=False), built.tensorboard, *given, *callbacks],
        "plugins": with_own_plugins(as_list(settings.plugins)),
        "max_time": None,  # its Timer is among the callbacks
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**(vars(settings) | own))
