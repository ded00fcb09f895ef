"""Callbacks of a training: progress bar, curves, and the summary at the end."""

import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, Timer, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from src import plots
from src.data import ImageDataModule
from src.runs.answers import has_answers, write_answers
from src.runs.folder import Run, run_folder
from src.system.files import replace_when_whole, write_json
from src.system.machine import describe_machine, tensorboard_command
from src.tensorboard.logger import RunLogger
from src.training.measuring import log_epoch, measuring_of
from src.training.stopping import last_checkpoint


class Progress(TQDMProgressBar):
    """Lightning's progress bar with epochs counted from 1, and the loss and accuracy of the current epoch so far."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=20)  # steps; each refresh waits for the device

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        # Not that of Lightning, which would show "Epoch 0" first.
        n_batches = self.total_train_batches
        self.train_progress_bar.reset(None if n_batches == float("inf") else int(n_batches))
        self.train_progress_bar.initial = 0
        self.train_progress_bar.set_description(_name_of_epoch(trainer))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        train = measuring_of(trainer).metrics["train"]  # Lightning asks before the first step, too
        return _shown(trainer, train.local_values() if train.update_called else {})


class EpochLines(ProgressBar):
    """A line for each epoch, where the output is no terminal: a bar would fill a log file with its refreshes."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            shown = _shown(trainer, measuring_of(trainer).newest.get("train", {}))
            values = ", ".join(f"{name} {value}" for name, value in shown.items())
            print(f"{_name_of_epoch(trainer)}: {values}", flush=True)

    def enable(self) -> None:
        pass

    def disable(self) -> None:
        pass


def _name_of_epoch(trainer: Trainer) -> str:
    of_all = f"/{trainer.max_epochs}" if _planned_epochs(trainer) else ""
    return f"Epoch {trainer.current_epoch + 1}{of_all}"


def _shown(trainer: Trainer, train: dict[str, Tensor]) -> dict[str, str]:
    """Loss and accuracy of the newest validation and of the training images, and what the network shows."""
    values = {f"val_{name}": value for name, value in measuring_of(trainer).newest.get("val", {}).items()}
    values |= {f"train_{name}": value for name, value in train.items()}
    measured = {name: value.item() for name, value in values.items() if value.is_floating_point()}
    return {name: f"{value:.4f}" for name, value in (measured | trainer.progress_bar_metrics).items()}


class Curves(Callback):
    """Logs the learning rate of its last step and the duration of each epoch, and stores all curves in the checkpoint.

    A resumed training continues these curves.
    """

    learning_rate: Any = 0.0  # of the current step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # After a resume inside an epoch, Lightning does not call on_train_epoch_start.
        self.epoch_start = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_start = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.optimizers:  # here, as the schedule moves on before a step or an epoch has ended
            self.learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = time.perf_counter() - self.epoch_start  # training and validation
        values = {"learning_rate": float(self.learning_rate), "epoch_seconds": seconds}
        log_epoch(trainer, "train", values, trainer.current_epoch + 1)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not isinstance(trainer.logger, RunLogger):
            return
        curves = trainer.logger.curves
        checkpoint["curves"] = {
            tag: {name: dict(points) for name, points in sub_runs.items()} for tag, sub_runs in curves.items()
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if isinstance(trainer.logger, RunLogger):
            trainer.logger.resume(checkpoint.get("curves", {}), checkpoint["global_step"])


class SavedSettings(Callback):
    """Writes into each checkpoint the settings of network and data, so that both can be built again from it.

    Args:
        settings: Of ``fit``, as plain data: at least ``model`` and ``data``.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["settings"] = self.settings


class WriteAnswers(Callback):
    """Writes ``answers.npz`` into the run folder after the test.

    Args:
        ckpt_path: The checkpoint that is tested, if there is no training. If it is the newest one of a run that has no
            answers, and all images are tested, the run gets them.
    """

    def __init__(self, ckpt_path: str | None = None) -> None:
        self.ckpt_path = ckpt_path

    @rank_zero_only
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        measuring = measuring_of(trainer)
        if (logits_NK := measuring.test_logits_NK) is None:
            return
        if self.ckpt_path is not None:
            run = Run(run_folder(Path(self.ckpt_path)))
            is_run = run.checkpoint == Path(self.ckpt_path) and run.config_file.is_file()
            if not is_run or trainer.limit_test_batches != 1.0 or has_answers(run):
                return
        elif isinstance(trainer.logger, RunLogger):
            run = Run(Path(trainer.logger.log_dir))
        else:
            return
        labels_N, data = measuring.test_labels_N, trainer.datamodule  # type: ignore[attr-defined]
        images = data.test[0][: len(labels_N)] if isinstance(data, ImageDataModule) else None
        write_answers(run.folder, logits_NK.softmax(dim=1), labels_N, images, measuring.classes, measuring.shape)


class RunSummary(Callback):
    """Writes accuracy.png, loss.png and results.json after the test, and prints the result.

    Args:
        timer: The Timer of the same trainer.
        seed: Of the training.
    """

    def __init__(self, timer: Timer, seed: int) -> None:
        self.timer = timer
        self.seed = seed

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        test = measuring_of(trainer).result("test")
        test["accuracy"] = 1 - test["errors"] / test["images"]  # float32 gives 0.99140000343
        if not trainer.is_global_zero:
            return
        epochs, planned, seconds = trainer.current_epoch, _planned_epochs(trainer), self.timer.time_elapsed("train")
        last_batch = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        n_batches = trainer.num_training_batches
        stopped_early = last_batch < n_batches < float("inf") or (planned is not None and epochs < planned)
        minutes, rest = divmod(round(seconds), 60)
        of_planned = f"{f' of {planned}' if planned else ''}, stopped early after step {trainer.global_step:,}"
        lines = [
            describe_result(type(pl_module).__name__, "test", test),
            f"Epochs: {epochs}{of_planned if stopped_early else ''}, in {minutes} min {rest} s with validation",
        ]
        if not isinstance(trainer.logger, RunLogger):
            print("\n".join(lines))
            print_weights(trainer)
            return
        results = {
            "model": type(pl_module).__name__,
            "parameters": sum(parameter.numel() for parameter in pl_module.parameters()),
            "epochs": epochs,
            "planned_epochs": planned,
            "steps": trainer.global_step // max(len(trainer.optimizers), 1),  # Lightning counts those of all optimisers
            "stopped_early": stopped_early,
            "seed": self.seed,
            "test": test,
            "curves": trainer.logger.curves,
            "train_seconds": round(seconds, 3),
            "machine": describe_machine(pl_module.device, trainer.world_size),
        }
        if stopped_early:  # only then: HPARAMS has a column for each scalar of any run
            trainer.logger.writer("test").add_scalar("details/stopped_early_after_step", trainer.global_step, epochs)
        run = Path(trainer.logger.log_dir)
        for metric in ("accuracy", "loss"):
            with replace_when_whole(run / f"{metric}.png") as file:
                plots.training_curves(trainer.logger.curves[metric], metric).savefig(file, format="png", dpi=120)
        # Written last: a run with this file counts as finished. Printed afterwards: a closed pipe must not prevent it.
        write_json(run / "results.json", results)
        print("\n".join([*lines, f"Run:    {run}", f"Curves: {tensorboard_command(trainer.logger.save_dir)}"]))


def _planned_epochs(trainer: Trainer) -> int | None:
    """The number of epochs that the training should have; None if only steps or time limit it."""
    return trainer.max_epochs if trainer.max_epochs != -1 else None


def print_weights(trainer: Trainer) -> None:
    """Print where the weights of a training are, if it saved any."""
    path = None if trainer.fast_dev_run else last_checkpoint(trainer)  # type: ignore[attr-defined]
    if trainer.is_global_zero and path and path.is_file():
        print(f"Weights: {path}")


def describe_result(model: str, images: str, result: dict[str, Any]) -> str:
    """Describe the result of `EpochMetrics.compute` on "test" or "validation" images in one line."""
    return (
        f"{model}: {images} accuracy {result['accuracy']:.2%} "
        f"({result['errors']:,} errors in {result['images']:,} images), loss {result['loss']:.4f}"
    )
