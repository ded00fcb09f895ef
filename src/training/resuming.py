"""Resuming from a checkpoint, where Lightning alone would not resume exactly."""

from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer

from src.models import Classifier
from src.system.errors import UserError
from src.system.processes import gather


class DoubleWeights(Callback):
    """With 64-true, converts a network before its checkpoint is restored. Lightning would lose half of the digits."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.precision == "64-true":
            pl_module.double()


class Resuming(Callback):
    """Makes a training with max_steps go on where its checkpoint was saved, and refuses checkpoints that do not fit.

    Args:
        first_step: The step at which the training starts, in the checkpoint of this process.
    """

    def __init__(self, first_step: int = 0) -> None:
        self.first_step = first_step

    saved: tuple[int, int] | None = None  # numbers of optimisers and schedules in the checkpoint
    total_steps: Sequence[int | None] = ()  # of the schedules of this training, if they have an end
    max_steps = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        steps = gather(self.first_step)  # the first moment at which all processes exist
        if len(set(steps)) > 1:
            raise UserError(f"The processes start at different steps: {steps}. Each node needs the same run folder.")

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if "optimizer_states" in checkpoint:  # else Lightning refuses it
            self.saved = len(checkpoint["optimizer_states"]), len(checkpoint["lr_schedulers"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.max_steps = trainer.max_steps
        if self.saved is None:
            return
        current = len(trainer.optimizers), len(trainer.lr_scheduler_configs)
        if self.saved != current:  # Lightning would not restore the others
            have = "{} optimisers and {} learning rate schedules"
            raise UserError(
                f"{trainer.ckpt_path} contains the states of {have.format(*self.saved)}, but "
                f"{type(pl_module).__name__} has {have.format(*current)}. Use another checkpoint."
            )
        self.total_steps = _total_steps(trainer)
        # With max_steps, Lightning mistakes a checkpoint at the end of an epoch for one inside it, and skips an epoch.
        # So it restores the position without max_steps.
        trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps
        # A recipe of this package may not end inside its schedule. A network from elsewhere may, as with Lightning.
        is_ours = isinstance(pl_module, Classifier)
        for here, saved in zip(self.total_steps, _total_steps(trainer), strict=False):
            if here and saved and (here > saved or (here < saved and is_ours)):
                raise UserError(
                    f"The learning rate schedule of the checkpoint has {saved:,} steps, but that of this training has "
                    f"{here:,}. Use the number of epochs and the batch size of the checkpoint."
                )


def _total_steps(trainer: Trainer) -> list[int | None]:
    return [getattr(config.scheduler, "total_steps", None) for config in trainer.lr_scheduler_configs]
