"""What a run folder may name. A config that the user names is code; a checkpoint and the config of a run are data.

The parser imports what a text names, wherever a setting takes a class or a function, and reads files and JSON. So data
goes to the parser only if it has no text with which the parser could do that, beside those that are trusted here.
"""

import inspect
import re
import shlex
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import nn

from src.runs.checkpoints import MNIST, data_settings
from src.runs.folder import Run
from src.system.errors import UserError

# Classes that take plain values only, no functions.
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
        "TQDMProgressBar",
    ),
    "loggers": ("CSVLogger", "TensorBoardLogger"),
    "profilers": ("AdvancedProfiler", "SimpleProfiler"),
}
TRUSTED = {f"lightning.pytorch.{module}.{name}" for module, names in LIGHTNING.items() for name in names}
TRUSTED |= {"src.models.LeNet5", "src.models.CNN", "src.tensorboard.logger.RunLogger"}
# Settings of the Trainer, and of the classes above, that are paths.
PATHS = {"default_root_dir", "dirpath", "filename", "save_dir"}
PLAIN_TEXT = re.compile(r"[\w%+:,-]*|[\d.e+-]+")  # no name with a dot, no path, no JSON
PATH_TEXT = re.compile(r"[\w./~@%+ -]*")  # no dictionary in YAML or JSON


def refuse_foreign_config(run: Run, args: Collection[str]) -> None:
    """Raise a `UserError` if the config of a run names what is neither trusted nor on the command line `args`."""
    named = {part for arg in args for part in arg.split("=", 1)}

    def is_trusted(text: str) -> bool:
        return text in TRUSTED or text in named or (text.startswith("torch.nn.") and imported_class(text) is not None)

    is_mnist = data_settings(run.config)[0] == MNIST  # whose arguments are plain
    for section, paths in (("model", set[str]()), ("trainer", PATHS), ("data", set[str]())):
        if section == "data" and is_mnist:
            continue
        if name := _foreign_text(run.config.get(section), is_trusted, paths):
            raise UserError(
                f"{run.config_file} names {name}, which would be imported. If you trust it: {_with_config(run)}"
            )


def resume_command(run: Run) -> str:
    """The command line that resumes a run."""
    try:
        refuse_foreign_config(run, ())
    except UserError:
        return _with_config(run)
    return f"python -m src fit --resume {shlex.quote(str(run.folder))}"


def _with_config(run: Run) -> str:
    return shlex.join(["python", "-m", "src", "fit", "--config", str(run.config_file), "--resume", str(run.folder)])


def parser_defaults(saved: dict[str, Any]) -> dict[str, Any]:
    """Those settings of a checkpoint that a parser may read. What it would import is left to the config of the user."""
    defaults = dict(saved)
    for section in ("model", "data"):
        kind = imported_class(saved[section]["class_path"], object)
        if kind is None or foreign_argument(kind, saved[section]["init_args"]):
            defaults[section] = {"class_path": saved[section]["class_path"]}
    return defaults


def foreign_argument(kind: type, arguments: dict[str, Any]) -> str | None:
    """The first text in the arguments of a class that is neither plain nor an `nn.Module` imported already, or None.

    A text whose parameter is annotated with `str` or `Path` is never imported. For one without annotation, jsonargparse
    imports what looks like a dictionary, but no path and no name.
    """
    try:
        hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    except Exception:  # an annotation of the user's that Python cannot resolve
        hints = {}
    untyped = {  # else jsonargparse takes the type of the default
        name
        for name, one in inspect.signature(kind).parameters.items()
        if one.annotation is one.empty
        and (isinstance(one.default, str) or one.default is None or one.default is one.empty)
    }
    return _foreign_text(
        {
            name: value
            for name, value in arguments.items()
            if not _is_plain(hints.get(name)) and not (name in untyped and PATH_TEXT.fullmatch(str(value)))
        },
        lambda text: imported_class(text) is not None,
    )


def _is_plain(hint: Any) -> bool:
    """Whether a parameter takes texts and numbers only, or lists of them."""
    if get_origin(hint) in (Union, UnionType, list, tuple):
        return all(map(_is_plain, get_args(hint)))
    return isinstance(hint, type) and hint in (str, Path, int, float, bool, NoneType)


def imported_class(class_path: str, base: type[Any] = nn.Module) -> type[Any] | None:
    """The subclass of `base` of that name if its Python module is imported already, else None."""
    module, _, name = class_path.rpartition(".")
    imported = getattr(sys.modules.get(module), name, None)
    return imported if isinstance(imported, type) and issubclass(imported, base) else None


def _foreign_text(
    value: Any, is_trusted: Callable[[str], bool], paths: Collection[str] = (), key: str = ""
) -> str | None:
    if isinstance(value, dict):
        texts = (_foreign_text(inner, is_trusted, paths, str(name)) for name, inner in value.items())
    elif isinstance(value, list | tuple):
        texts = (_foreign_text(inner, is_trusted, paths, key) for inner in value)
    elif not isinstance(value, str | Path) or key in paths:
        return None
    else:
        text = str(value)
        is_plain = PLAIN_TEXT.fullmatch(text) and key != "class_path" and not Path(text).is_file()
        return None if is_plain or is_trusted(text) else text
    return next(filter(None, texts), None)
