"""The search file: which settings are searched, and in which ranges."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from src.runs.recipe import Role, settings_with
from src.system.errors import UserError, reason
from src.training.trainer import check_network

FORMS = "{log: [1e-4, 1e-1]}, {float: [0, 0.5]}, {int: [0, 3]} or {choice: [a, b]}"

Ranges = dict[str, BaseDistribution]  # setting, by its name on the command line → its range


def read_ranges(path: Path) -> Ranges:
    """Read a search file, such as ``model.lr: {log: [1e-4, 1e-1]}``.

    Raises:
        UserError: The file cannot be read, a range has a wrong form, or a setting cannot be searched.
    """
    try:
        # jsonargparse reads 1e-4 as a number, PyYAML alone as a text; `_number` accepts both.
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} names no settings. Write one a line, such as model.lr: {{log: [1e-4, 1e-1]}}")
    fixed = settings_with(Role.SEARCH | Role.SURROUNDINGS)
    for name in content:
        if name in fixed or not str(name).startswith(("model", "data.", "trainer.")):
            raise UserError(f"{path}: {name} can't be searched. Choose settings of model, data or trainer.")
    return {name: _range(path, name, given) for name, given in content.items()}


def _range(path: Path, name: str, given: Any) -> BaseDistribution:
    wrong = UserError(f"{path}: {name}: {json.dumps(given, default=str)} is not a range. Write {FORMS}.")
    if not isinstance(given, dict) or len(given) != 1:
        raise wrong
    ((form, values),) = given.items()
    if form == "choice" and isinstance(values, list) and values:
        # Optuna stores plain values only.
        return CategoricalDistribution([json.dumps(one) if isinstance(one, list | dict) else one for one in values])
    if form not in ("log", "float", "int") or not isinstance(values, list) or len(values) != 2:
        raise wrong
    try:
        if form == "int":
            return IntDistribution(low=int(str(values[0])), high=int(str(values[1])))
        return FloatDistribution(low=float(str(values[0])), high=float(str(values[1])), log=form == "log")
    except ValueError as error:  # not a number, or not a range for Optuna
        raise UserError(f"{wrong} {' '.join(str(error).split())}") from None


def as_words(values: dict[str, Any]) -> list[str]:
    """Values of settings as options of the command line."""
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]


def check_ranges(path: Path, ranges: Ranges, parser: LightningArgumentParser, base: Namespace) -> None:
    """Try the ends of each range and each choice, with a network that classifies two images.

    Args:
        path: The search file, for the messages.
        ranges: Its content.
        parser: The parser of ``fit``. It ends the program for a value of a wrong type.
        base: The settings that are not searched.

    Raises:
        UserError: A class refuses a value.
    """
    reading: Any = parser
    for name, values in ranges.items():
        for value in _ends(values):
            with reading.reading(f"{path}: {name}"):
                config = parser.parse_args(as_words({name: value}), namespace=base.clone())
            try:
                built: Any = parser.instantiate(config)
                check_network(built.model, len(built.data.classes))
            except Exception as error:  # a network of the user can raise any
                raise UserError(f"{path}: {name}: {value} is refused: {_cause(error)}") from None


def _ends(values: BaseDistribution) -> Iterator[Any]:
    if isinstance(values, CategoricalDistribution):
        yield from values.choices
    elif isinstance(values, FloatDistribution | IntDistribution):
        yield from (values.low, values.high)


def _cause(error: BaseException) -> str:
    """The first cause of an error. jsonargparse wraps what a class raises."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return reason(error)
