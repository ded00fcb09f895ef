"""What may end a training early, or save it on the way: signals, a loss that diverges, a clock."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from src.runs.folder import Run
from src.system.errors import UserError
from src.tensorboard.logger import RunLogger

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what a cluster sends
# Steps. To look at a number on a GPU is to wait for it; to ask another process took 1.3 of LeNet5's 29 ms.
LOOK_EVERY = 20


class Interrupted(Exception):  # noqa: N818
    """No error: a signal has ended the training, after the step was finished and saved."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Stopping(Callback):
    """Saves and ends a training on a signal; ends it where the loss is no number; saves inside epochs if asked to.

    All processes agree on it within 20 steps, whichever of them got the signal. Checkpoints are written
    only where a training can be resumed exactly: not at steps that a validation follows (Lightning would
    leave it out), where the end of the epoch is awaited, and not between steps of accumulated gradients.

    Args:
        every_n_steps: Save after so many steps, 0 for never.
        every_n_minutes: Save after so many minutes, 0 for never.
    """

    def __init__(self, every_n_steps: int = 0, every_n_minutes: float = 0) -> None:
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.signal = 0  # what this process got
        self.stop, self.save = 0, False  # what all have agreed on, and is to be done at the next step that allows it
        self.diverged_at = torch.zeros((), dtype=torch.long, device=pl_module.device)  # step, from 1
        self.saved = time.monotonic()
        for number in SIGNALS:
            signal.signal(number, self._note)  # Lightning restores the handlers after the training
        plateau = any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)
        if plateau and trainer.ckpt_path:
            raise UserError("A training with ReduceLROnPlateau can't be resumed exactly: it lags behind.")

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:  # the second one ends at once
            os._exit(128 + number)
        self.signal = number

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            no_number = ~torch.isfinite(loss.detach()) & (self.diverged_at == 0)
            self.diverged_at = torch.where(no_number, trainer.global_step, self.diverged_at)
        validation_follows = trainer.is_last_batch or (batch_idx + 1) % (trainer.val_check_batch or 1) == 0
        step_ends = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        by_steps = bool(self.every_n_steps) and step_ends and trainer.global_step % self.every_n_steps == 0
        by_clock = bool(self.every_n_minutes) and time.monotonic() - self.saved > 60 * self.every_n_minutes
        look = validation_follows or by_steps or batch_idx % LOOK_EVERY == 0
        if trainer.world_size == 1:
            look |= pl_module.device.type == "cpu" or by_clock or bool(self.signal)
        if look:
            self.stop, diverged_at, save = self._agree(save=by_steps or by_clock)
            self.save |= save
            if diverged_at:
                self._diverged(trainer, diverged_at)
        if (self.stop or self.save) and step_ends and not validation_follows:
            self._save(trainer)
            if self.stop:
                self._stop(trainer, self.stop)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The last step may have ruined the weights after its loss; the checkpoint of the epoch comes next.
        loss = trainer.callback_metrics.get("val_loss")
        if loss is not None and not torch.isfinite(loss):
            self._diverged(trainer, trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save = False  # the epoch before was saved when it ended
        if stop := self._agree()[0]:
            self._stop(trainer, stop)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if stop := self._agree()[0]:
            self._stop(trainer, stop)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def end(number: int, frame: FrameType | None) -> None:
            self._stop(trainer, number)

        for number in SIGNALS:
            signal.signal(number, end)

    def _agree(self, save: bool = False) -> tuple[int, int, bool]:
        """The signal (or 0), the step at which the loss diverged (or 0) and whether to save: the same everywhere."""
        state = torch.tensor([self.signal, 0, save], device=self.diverged_at.device)
        state[1] = self.diverged_at
        if dist.is_initialized():
            dist.all_reduce(state, dist.ReduceOp.MAX)
        stop, step, due = state.tolist()
        return stop, step, bool(due)

    def _save(self, trainer: Trainer) -> None:
        self.saved, self.save = time.monotonic(), False
        if trainer.checkpoint_callback is not None and isinstance(trainer.logger, RunLogger):
            trainer.save_checkpoint(Run(Path(trainer.logger.log_dir)).checkpoint, weights_only=False)

    def _stop(self, trainer: Trainer, number: int) -> None:
        finished = trainer.max_epochs is not None and trainer.current_epoch == trainer.max_epochs
        epoch = trainer.current_epoch + (not finished)  # counted from 1
        where = f"Stopped in epoch {epoch}, after step {trainer.global_step:,}"
        if trainer.checkpoint_callback is None or not isinstance(trainer.logger, RunLogger):
            raise Interrupted(number, f"{where}; nothing was saved.")
        raise Interrupted(number, f"{where}. Go on with: python -m src fit --resume {trainer.logger.log_dir}")

    def _diverged(self, trainer: Trainer, step: int) -> None:
        learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        raise UserError(
            f"The loss is no number any more: epoch {trainer.current_epoch + 1}, step {step:,}, learning rate "
            f"{learning_rate:g}. Try a lower --model.lr. Checkpoints of before are kept."
        )
