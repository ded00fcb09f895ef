"""Ends or saves a training early: on a signal, on a loss that is NaN or infinite, at intervals."""

import os
import shlex
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from src.runs.checkpoints import LAST
from src.runs.folder import Run
from src.runs.trust import resume_command
from src.system.errors import UserError
from src.system.signals import Interrupted, set_handler
from src.tensorboard.logger import RunLogger
from src.training.measuring import measuring_of
from src.training.unsupported import as_list

# Steps between checks. Reading a value from the GPU waits for all work queued on it, and a reduction over two
# processes took 1.3 of the 29 ms of a step of LeNet5.
CHECK_EVERY = 20
NO_PLATEAU = "A training with ReduceLROnPlateau cannot be resumed exactly: Lightning loses one of its updates."
SAME_SIGNAL = 0.5  # seconds, in which srun, torchrun or `compare` may pass on a signal that the process got already


class Stopping(Callback):
    """Saves and ends a training on a signal, ends it if the loss is NaN or infinite, and saves inside epochs.

    All processes stop at the same step, at most 20 steps later, whichever process got the signal. Checkpoints are
    written only where a training can be resumed exactly. That excludes steps between accumulated gradients, and steps
    that are followed by a validation, because Lightning would skip the validation on resuming. There the training
    stops at the end of the epoch. It excludes all steps inside an epoch if the loader has no `state_dict`.

    Args:
        every_n_steps: Steps between saves, 0 for none.
        every_n_minutes: Minutes between saves, 0 for none.
    """

    def __init__(self, every_n_steps: int = 0, every_n_minutes: float = 0) -> None:
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.received = 0  # signal that this process got
        self.received_at = 0.0  # seconds
        self.agreed = 0  # signal that all processes know of
        self.save_is_due = False
        self.keeps_position = True  # whether the loader can go on inside an epoch
        self.losses: list[tuple[int, Tensor]] = []  # steps and their losses since the last check, on the device

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved_at = time.monotonic()
        set_handler(self._receive)  # Lightning restores the handlers after the training
        loaders = as_list(trainer.train_dataloader)
        self.keeps_position = all(hasattr(loader, "load_state_dict") for loader in loaders)
        if (self.every_n_steps or self.every_n_minutes) and not self.keeps_position:
            rank_zero_warn(
                f"Nothing is saved inside epochs: the {type(loaders[0]).__name__} keeps no position in them."
            )
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):  # not asked after a resume inside an epoch
                trainer.accumulate_grad_batches = callback.get_accumulate_grad_batches(trainer.current_epoch)
        if _has_plateau(trainer) and trainer.ckpt_path:
            raise UserError(NO_PLATEAU)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self.received_at = number, time.monotonic()
        elif time.monotonic() - self.received_at > SAME_SIGNAL:
            os._exit(128 + number)  # the second signal ends the process at once

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            self.losses.append((step, loss.detach()))
        # Without epochs between validations, Lightning counts the batches of all epochs.
        counted = batch_idx if trainer.check_val_every_n_epoch else trainer.fit_loop.epoch_loop.total_batch_idx
        validation_follows = trainer.is_last_batch or (counted + 1) % (trainer.val_check_batch or 1) == 0
        validation_follows |= step == trainer.max_steps  # the epoch ends here
        step_ends = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        by_steps = bool(self.every_n_steps) and step_ends and step % self.every_n_steps == 0
        by_clock = bool(self.every_n_minutes) and time.monotonic() - self.saved_at > 60 * self.every_n_minutes
        check = validation_follows or by_steps or batch_idx % CHECK_EVERY == 0
        if trainer.world_size == 1:
            check |= by_clock or bool(self.received)
        if check:
            self._agree(trainer, save=by_steps or by_clock)
        if (self.agreed or self.save_is_due) and step_ends and not validation_follows:
            if self.keeps_position:
                self._save(trainer)
            self._stop_if_agreed(trainer, is_saved=self.keeps_position)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # The optimiser may have ruined the weights after the last loss. The checkpoint of the epoch comes next.
        loss = measuring_of(trainer).newest.get("val", {}).get("loss")
        if loss is not None and not torch.isfinite(loss):
            _raise_diverged(trainer, trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)
        self.save_is_due = False  # the previous epoch was saved at its end
        self._stop_if_agreed(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)
        self._stop_if_agreed(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def end(number: int, frame: FrameType | None) -> None:
            self.agreed = number
            self._stop_if_agreed(trainer)

        set_handler(end)
        self._agree(trainer)  # on a signal since the end of the training
        self._stop_if_agreed(trainer)

    def _agree(self, trainer: Trainer, save: bool = False) -> None:
        """Share signal, diverged step and whether to save. Collective: every process must call this."""
        state = [self.received, self._first_diverged_step(), save]
        if dist.is_initialized():
            shared = torch.tensor(state, device=trainer.strategy.root_device)
            dist.all_reduce(shared, dist.ReduceOp.MAX)
            state = shared.tolist()
        self.agreed, diverged_at, save_is_due = state
        self.save_is_due |= bool(save_is_due)
        if diverged_at:
            _raise_diverged(trainer, diverged_at)

    def _first_diverged_step(self) -> int:
        """The first step since the last check with a loss that is NaN or infinite, or 0. Waits for the device."""
        if not self.losses:
            return 0
        steps, losses = zip(*self.losses, strict=True)
        self.losses.clear()
        finite = torch.isfinite(torch.stack(losses)).view(len(steps), -1).all(dim=1).tolist()
        return 0 if all(finite) else steps[finite.index(False)]

    def _save(self, trainer: Trainer) -> None:
        self.saved_at, self.save_is_due = time.monotonic(), False
        if path := last_checkpoint(trainer):
            trainer.save_checkpoint(path, weights_only=False)

    def _stop_if_agreed(self, trainer: Trainer, is_saved: bool = True) -> None:
        if not self.agreed:
            return
        is_finished = trainer.max_epochs is not None and trainer.current_epoch == trainer.max_epochs
        epoch = trainer.current_epoch + (not is_finished)  # counted from 1
        where = f"Stopped in epoch {epoch}, after step {trainer.global_step:,}"
        if not is_saved:
            start = f"the end of epoch {epoch - 1}" if epoch > 1 else "its start"
            where += f". Its loader keeps no position, so the training goes on from {start}"
        if (path := last_checkpoint(trainer)) is None:
            raise Interrupted(self.agreed, f"{where}. Nothing was saved.")
        if _has_plateau(trainer):
            raise Interrupted(self.agreed, f"{where}, saved in {path}. {NO_PLATEAU}")
        command = f"the same command and --ckpt_path {shlex.quote(str(path))}"
        if isinstance(trainer.logger, RunLogger):
            command = resume_command(Run(Path(trainer.logger.log_dir)))
        raise Interrupted(self.agreed, f"{where}. Go on with: {command}")


class LastCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt`` after each epoch. A class of its own, beside a ModelCheckpoint of the user."""

    def __init__(self) -> None:
        super().__init__(filename="last", enable_version_counter=False, save_on_train_epoch_end=True)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        path = Path(str(self.dirpath), LAST)
        goes_on = isinstance(trainer.logger, RunLogger) or str(trainer.ckpt_path) == str(path)
        if trainer.is_global_zero and path.is_file() and not goes_on:  # of another training, without a run folder
            raise UserError(f"{path} is of an earlier training. Move it, or set another --trainer.default_root_dir.")

    @cached_property
    def state_key(self) -> str:  # type: ignore[override]
        return super().state_key  # Lightning asks for it in each hook of each step


def last_checkpoint(trainer: Trainer) -> Path | None:
    """The path of ``last.ckpt``; None if this training saves no checkpoints."""
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint)]
    return Path(callbacks[0].dirpath, LAST) if callbacks and callbacks[0].dirpath else None


def _has_plateau(trainer: Trainer) -> bool:
    return any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)


def _raise_diverged(trainer: Trainer, step: int) -> None:
    learning_rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else 0.0
    path = last_checkpoint(trainer)
    kept = f" {path} is the last checkpoint." if path and path.is_file() else ""
    raise UserError(
        f"The loss is NaN or infinite: epoch {trainer.current_epoch + 1}, step {step:,}, learning rate "
        f"{learning_rate:g}. Try a lower learning rate.{kept}"
    )
