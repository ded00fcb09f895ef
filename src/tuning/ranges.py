"""The search file: which settings are searched, and in which ranges."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from src.runs.recipe import Role, settings_with
from src.system.errors import UserError

FORMS = "{log: [1e-4, 1e-1]}, {float: [0, 0.5]}, {int: [0, 3]} or {choice: [a, b]}"
SEARCHED = ("model", "data.", "trainer.", "optimizer", "lr_scheduler")

Ranges = dict[str, dict[str, list[Any]]]  # setting, by its name on the command line → its range, in one of the FORMS


def read_ranges(path: Path) -> Ranges:
    """Read a search file, such as ``model.lr: {log: [1e-4, 1e-1]}``.

    Raises:
        UserError: The file cannot be read, a range has a wrong form, or a setting cannot be searched.
    """
    try:
        text = path.read_text()
        ranges, node = yaml.safe_load(text), yaml.compose(text, yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(ranges, dict) or not ranges:
        raise UserError(f"{path} names no settings. Write one a line, such as model.lr: {{log: [1e-4, 1e-1]}}")
    assert isinstance(node, yaml.MappingNode)
    names = [_short(key.value) for key, _ in node.value]  # the dictionary has the last one of equal names
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise UserError(f"{path} names {twice[0]} twice. Write each setting once.")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trial = optuna.create_study().ask()  # in memory, to try each range
    fixed = set(map(_short, settings_with(Role.SEARCH | Role.SURROUNDINGS)))
    for name, written in ranges.items():
        if _short(str(name)) in fixed or not str(name).startswith(SEARCHED):
            raise UserError(f"{path}: {name} can't be searched. Choose settings of model, data, trainer or optimizer.")
        try:
            choose(trial, name, written)
        except (AttributeError, TypeError, ValueError) as error:
            shown, cause = json.dumps(written, default=str), " ".join(str(error).split())
            raise UserError(f"{path}: {name}: {shown} is not a range. Write {FORMS}. ({cause})") from None
    return ranges


def _short(name: str) -> str:
    """The name of a setting without ``init_args``, which the command line allows in it."""
    return name.replace(".init_args.", ".")


def is_wider(new: dict[str, list[Any]], old: dict[str, list[Any]]) -> bool:
    """Whether a range of numbers contains another one of the same form. Optuna can't change the choices of a study."""
    if new.keys() != old.keys() or "choice" in new:
        return False
    (low, high), (old_low, old_high) = (map(float, *written.values()) for written in (new, old))
    return low <= old_low and old_high <= high


def choose(trial: optuna.Trial, name: str, written: dict[str, list[Any]]) -> Any:
    """Let Optuna choose the value of a setting for a trial. Raises a `ValueError` and others for a wrong range."""
    ((form, values),) = written.items()
    json.dumps(values, allow_nan=False)  # Optuna accepts more than JSON can hold
    if form == "choice":  # Optuna stores plain values only
        plain = [json.dumps(value) if isinstance(value, list | dict) else value for value in values]
        if len(set(map(json.dumps, values))) < len(values):
            raise ValueError("a choice is named twice")
        return trial.suggest_categorical(name, plain)
    low, high = map(str, values)  # PyYAML reads 1e-4 as a text
    if form == "int":
        return trial.suggest_int(name, int(low), int(high))
    if form not in ("log", "float"):
        raise ValueError(f"{form} is unknown")
    return trial.suggest_float(name, float(low), float(high), log=form == "log")


def as_args(values: dict[str, Any]) -> list[str]:
    """Values of settings as arguments of the command line."""
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]


def check_ranges(path: Path, ranges: Ranges, parser: LightningArgumentParser, settings: Namespace) -> None:
    """Parse the ends of each range and each choice as options of ``fit``. The parser ends the program for a wrong one.

    `path` is the search file, for the messages.
    """
    reading: Any = parser
    for name, written in ranges.items():
        ((form, values),) = written.items()
        for value in map(float, values) if form in ("log", "float") else values:
            with reading.reading(f"{path}: {name}"):
                parser.parse_args(as_args({name: value}), namespace=settings.clone())
