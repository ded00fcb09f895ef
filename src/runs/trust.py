"""What the config.yaml of a run may name. A run folder is data: nothing in it decides what is imported or called."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.runs.folder import Run
from src.runs.network import imported_network
from src.system.errors import UserError

# Classes of Lightning that take plain values only, no functions.
LIGHTNING = {
    "callbacks": (
        "DeviceStatsMonitor",
        "EarlyStopping",
        "EMAWeightAveraging",
        "GradientAccumulationScheduler",
        "LearningRateMonitor",
        "ModelCheckpoint",
        "ModelSummary",
        "OnExceptionCheckpoint",
        "RichModelSummary",
        "RichProgressBar",
        "Timer",
        "TQDMProgressBar",
    ),
    "loggers": ("CSVLogger", "TensorBoardLogger"),
    "profilers": ("AdvancedProfiler", "SimpleProfiler"),
}
TRUSTED = {f"lightning.pytorch.{module}.{name}" for module, names in LIGHTNING.items() for name in names}
DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def refuse_foreign_code(run: Run, given: dict[str, Any]) -> None:
    """Check the names in the config of a run before the parser imports them.

    The networks of this package, modules of networks that are imported already, and classes of Lightning that take
    plain values are trusted, and what the user named.

    Args:
        run: The run to resume.
        given: The settings of the user, in which names are trusted.

    Raises:
        UserError: The config names something else.
    """
    named = set(_importable(given))
    for name in _importable({key: value for key, value in run.config.items() if key in ("model", "trainer")}):
        full = {name} | {trusted for trusted in TRUSTED if trusted.endswith(f".{name}")}
        if not (full & (TRUSTED | named) or imported_network(name)):
            option = "--model NAME" if name == _class_path(run.config.get("model")) else "the --config that names it"
            raise UserError(
                f"{run.config_file} names {name}, which would be imported. If you trust it, add "
                f"{option.replace('NAME', name)}."
            )


def _class_path(model: Any) -> Any:
    return model.get("class_path") if isinstance(model, dict) else model


def _importable(value: Any, key: str = "") -> Iterator[str]:
    """Every string, at any depth, that the parser may import: class paths, and dotted names, except paths of files."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _importable(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _importable(inner, key)
    elif isinstance(value, str | Path):
        is_file = key in ("config", "ckpt_path", "resume", "data_dir", "default_root_dir", "dirpath", "save_dir")
        if not is_file and (key == "class_path" or DOTTED_NAME.fullmatch(str(value))):
            yield str(value)
