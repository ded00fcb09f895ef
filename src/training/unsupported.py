"""Settings and callbacks of Lightning that this package refuses, each with the reason."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import Callback
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from src.runs.checkpoints import LAST, PREVIOUS
from src.system.errors import UserError

OWN_FILES = (LAST, PREVIOUS, "best.ckpt")

REFUSED_CALLBACKS = {
    "BaseFinetuning": "a resumed training would not train the unfrozen layers. "
    "Return a group of parameters with its own learning rate from configure_optimizers.",
    "LearningRateFinder": "it trains with a rate that config.yaml does not contain. Search with it elsewhere.",
    "BatchSizeFinder": "it trains with a batch size that config.yaml does not contain. Set --data.batch_size.",
    "StochasticWeightAveraging": "it averages after the last save. Use EMAWeightAveraging.",
    "Timer": "set --trainer.max_time.",
    "ModelPruning": "it needs contiguous weights, and renames them, so that no checkpoint fits.",
}

BATCHES = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}


def refuse_unsupported(settings: Namespace, callbacks: Sequence[Callback], ckpt_path: str | None) -> None:
    """Raise a `UserError` for settings of the Trainer, or callbacks of the user, that cannot give a correct run."""
    for name, reason in REFUSED_CALLBACKS.items():
        for callback in callbacks:
            if isinstance(callback, getattr(lightning_callbacks, name)):
                raise UserError(f"{type(callback).__name__} is not supported: {reason}")
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and (callback.save_last or f"{callback.filename}.ckpt" in OWN_FILES):
            raise UserError(
                "A ModelCheckpoint of your own must not write last.ckpt, best.ckpt or previous.ckpt, which fit writes: "
                "leave out save_last, and choose another filename."
            )
    if settings.precision in ("16-true", "transformer-engine-float16"):
        raise UserError(
            f"--trainer.precision {settings.precision} is not supported: the eps of Adam, 1e-7, is 0 in float16. "
            "Use 16-mixed or bf16-mixed."
        )
    endless = settings.max_epochs in (None, -1) and settings.max_steps in (None, -1) and settings.max_time is None
    if endless or (settings.max_epochs is not None and settings.max_epochs != -1 and settings.max_epochs < 1):
        raise UserError(f"--trainer.max_epochs is {settings.max_epochs}; it must be at least 1.")
    # Lightning starts a training from these files without being asked: SLURM's, and those of OnExceptionCheckpoint.
    root = Path(settings.default_root_dir or ".")
    unasked = sorted(root.glob("hpc_ckpt_*.ckpt"))
    for callback in callbacks:
        if isinstance(callback, OnExceptionCheckpoint):
            unasked += [path for path in (Path(callback.ckpt_path), root / "checkpoints" / LAST) if path.is_file()]
    if unasked and ckpt_path is None:
        path = unasked[-1]
        raise UserError(f"Lightning would start this training from {path}. Remove it, or name it: --ckpt_path {path}")


def refuse_unsupported_strategy(strategy: str | Namespace) -> None:
    """Raise a `UserError` for a strategy whose processes do not have all weights, or end before the test.

    Args:
        strategy: A name, or the class path and the arguments of a class.
    """
    text = str(strategy).lower()
    name = strategy if isinstance(strategy, str) else strategy.class_path.rpartition(".")[2]
    if any(part in text for part in ("fsdp", "deepspeed", "modelparallel")):
        raise UserError(f"--trainer.strategy {name} is not supported: it splits the weights. Use ddp.")
    if any(part in text for part in ("spawn", "fork", "notebook")):
        raise UserError(
            f"--trainer.strategy {name} is not supported: its processes end after the training, and the test has no "
            "curves and metrics. Use ddp; in a notebook, use Lightning's Trainer."
        )


def refuse_no_batches(command: str, settings: Namespace) -> None:
    """Raise a `UserError` if the Trainer is limited to zero batches for this command."""
    name = f"limit_{BATCHES[command]}_batches"
    if settings[name] == 0:
        raise UserError(f"--trainer.{name} is 0: there is nothing to {command}.")


def as_list(value: Any) -> list[Any]:
    """Return a setting that may be nothing, one object or a list as a list."""
    return [] if value is None else value if isinstance(value, list) else [value]
