"""The search file: which settings are searched, and in which ranges."""

import json
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from optuna import Trial
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from src.runs.recipe import Role, settings_with
from src.system.errors import UserError

FORMS = "{log: [1e-4, 1e-1]}, {float: [0, 0.5]}, {int: [0, 3]} or {choice: [a, b]}"

Range = CategoricalDistribution | FloatDistribution | IntDistribution
Ranges = dict[str, Range]  # setting, by its name on the command line → its range


def read_ranges(path: Path) -> Ranges:
    """Read a search file, such as ``model.lr: {log: [1e-4, 1e-1]}``.

    Raises:
        UserError: The file cannot be read, a range has a wrong form, or a setting cannot be searched.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} names no settings. Write one a line, such as model.lr: {{log: [1e-4, 1e-1]}}")
    fixed = settings_with(Role.SEARCH | Role.SURROUNDINGS)
    for name, written in content.items():
        if name in fixed or not str(name).startswith(("model", "data.", "trainer.")):
            raise UserError(f"{path}: {name} can't be searched. Choose settings of model, data or trainer.")
        try:
            ((form, values),) = written.items()
            content[name] = _range(form, *values)
        except (AttributeError, TypeError, ValueError, OverflowError) as error:
            text = json.dumps(written, default=str)
            cause = " ".join(str(error).split())
            raise UserError(f"{path}: {name}: {text} is not a range. Write {FORMS}. ({cause})") from None
    return content


def _range(form: str, *values: Any) -> Range:
    texts = [json.dumps(value, allow_nan=False) for value in values]
    if form == "choice":  # Optuna stores plain values only
        choices = zip(values, texts, strict=True)
        return CategoricalDistribution([text if isinstance(one, list | dict) else one for one, text in choices])
    low, high = (text.strip('"') for text in texts)  # PyYAML reads 1e-4 as a text
    if form == "int":
        return IntDistribution(int(low), int(high))
    if form not in ("log", "float"):
        raise ValueError(f"{form} is unknown")
    return FloatDistribution(float(low), float(high), log=form == "log")


def choose(trial: Trial, name: str, values: Range) -> Any:
    """Let Optuna choose the value of a setting for a trial."""
    if isinstance(values, CategoricalDistribution):
        return trial.suggest_categorical(name, values.choices)
    if isinstance(values, IntDistribution):
        return trial.suggest_int(name, values.low, values.high)
    return trial.suggest_float(name, values.low, values.high, log=values.log)


def as_args(values: dict[str, Any]) -> list[str]:
    """Values of settings as arguments of the command line."""
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]


def check_ranges(path: Path, ranges: Ranges, parser: LightningArgumentParser, settings: Namespace) -> None:
    """Parse the ends of each range and each choice as options. The parser ends the program for a wrong one.

    Args:
        path: The search file, for the messages.
        ranges: Its content.
        parser: The parser of ``fit``.
        settings: Those of ``fit``, which the ranges change.
    """
    reading: Any = parser
    for name, values in ranges.items():
        for value in values.choices if isinstance(values, CategoricalDistribution) else (values.low, values.high):
            with reading.reading(f"{path}: {name}"):
                parser.parse_args(as_args({name: value}), namespace=settings.clone())
