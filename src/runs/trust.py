"""What a run may name in its config.yaml and checkpoints. It is data: nothing in it is imported or called."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import set_parsing_settings
from torch import nn

from src.runs.folder import Run
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
        "TQDMProgressBar",
    ),
    "loggers": ("CSVLogger", "TensorBoardLogger"),
    "profilers": ("AdvancedProfiler", "SimpleProfiler"),
}
TRUSTED = {f"lightning.pytorch.{module}.{name}" for module, names in LIGHTNING.items() for name in names}
# No setting names a class or function of the standard library: it could run a program or delete files.
set_parsing_settings(import_path_denylist=[*sys.stdlib_module_names])
DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def refuse_foreign_code(run: Run, given: dict[str, Any]) -> None:
    """Check the names in the config of a run before the parser imports them.

    Trusted are the networks of this package, network modules that are imported already, classes of Lightning that take
    plain values, and what the user named.

    Args:
        run: The run to resume.
        given: The settings of the user, in which names are trusted.

    Raises:
        UserError: The config names something else.
    """
    model = run.config.get("model")
    network = model.get("class_path") if isinstance(model, dict) else model
    for name in _importable({key: value for key, value in run.config.items() if key in ("model", "trainer")}):
        full = {name} | {trusted for trusted in TRUSTED if trusted.endswith(f".{name}")}
        if not (full & (TRUSTED | set(_importable(given))) or imported_module(name)):
            option = f"--model {name}" if name == network else "the --config that names it"
            raise UserError(f"{run.config_file} names {name}, which would be imported. If you trust it, add {option}.")


def foreign_argument(arguments: dict[str, Any]) -> str | None:
    """The first name in the arguments of a network that is not an `nn.Module` imported already, or None.

    A checkpoint with such a name is refused.
    """
    for name in _importable(arguments):
        root = name.partition(".")[0]
        is_text = root != name and root not in sys.modules and find_spec(root) is None  # for example weights.pt
        if not is_text and imported_module(name) is None:
            return name
    return None


def imported_module(class_path: str) -> type[nn.Module] | None:
    """The subclass of `nn.Module` of that name if its Python module is imported already, else None."""
    module, _, name = class_path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


class _NoImports(MetaPathFinder):
    """Finds no module, so that none is imported, except those that Python and the parser import when they need them."""

    PARSER = {"argcomplete", "attr", "attrs", "docstring_parser", "jsonargparse", "pydantic", "typeshed_client", "yaml"}
    ALLOWED = sys.stdlib_module_names | PARSER | {"lightning", "torch"}

    def find_spec(self, name: str, *args: Any) -> None:
        if name.partition(".")[0] not in self.ALLOWED:
            raise ModuleNotFoundError(f"{name} was not imported, because a file must not cause an import")


@contextmanager
def no_imports() -> Iterator[None]:
    """Import nothing while the parser reads what a run folder or a checkpoint contains.

    The parser also imports names in strings, and in files that strings name. A check cannot find all of them.
    """
    finder = _NoImports()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _importable(value: Any, key: str = "") -> Iterator[str]:
    """Every string, at any depth, that the parser may import: class paths, and dotted names, except paths of files."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _importable(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _importable(inner, key)
    elif isinstance(value, str | Path):
        with suppress(yaml.YAMLError, ValueError):  # the parser reads a string as YAML or JSON
            if isinstance(nested := yaml.safe_load(str(value)), dict | list):
                yield from _importable(nested, key)
        is_file = key in ("config", "ckpt_path", "resume", "data_dir", "default_root_dir", "dirpath", "save_dir")
        if not is_file and (key == "class_path" or DOTTED_NAME.fullmatch(str(value))):
            yield str(value)
