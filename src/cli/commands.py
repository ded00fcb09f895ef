"""The commands beside those of LightningCLI. To add one, write a function, add it to `COMMANDS`, and name it in `HELP`.

Its options are the parameters of the function: their types and defaults, and the texts of its docstring.
"""

import inspect
import types
from argparse import SUPPRESS
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

import docstring_parser
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from src.inference.demo import demo
from src.inference.export import export
from src.report.compare import compare
from src.system.errors import UserError
from src.system.files import local_path
from src.system.machine import install_command
from src.tuning.tune import tune

COMMANDS: dict[str, Callable[..., None]] = {"export": export, "demo": demo, "compare": compare, "tune": tune}
EXTRAS = {"gradio", "onnx", "onnxruntime", "onnxscript", "optuna", "sqlalchemy"}  # packages of single commands
TRAINING = {"tune"}  # commands that take the settings of `fit` too
# Positional-only parameters of a command are not options. They get:
#   fit_parser  the parser of `fit`
#   args        the command line, without `python -m src`
#   settings    those of `fit`


def add_options(parser: LightningArgumentParser, command: Callable[..., None]) -> None:
    """Add an option for each parameter of a command. A parameter without a text is hidden in the help."""
    texts = {one.arg_name: one.description for one in docstring_parser.parse(inspect.getdoc(command) or "").params}
    for parameter in _options(command):
        kind, is_list = _item_type(parameter.annotation)
        more: dict[str, Any] = {"metavar": "PATH"} if kind is Path else {}
        if is_list:
            more |= {"nargs": "*" if parameter.name == "folders" else "+"}
        if parameter.default is False:
            more |= {"action": "store_true"}
        else:
            default = [] if is_list else parameter.default
            more |= {
                "type": str if kind is Path else kind,
                "default": str(default) if kind is Path and default else default,
            }
        name = parameter.name if parameter.name == "folders" else f"--{parameter.name}"
        parser.add_argument(name, help=texts.get(parameter.name) or SUPPRESS, **more)


def run_command(name: str, settings: Namespace, fit_parser: LightningArgumentParser, args: list[str]) -> None:
    """Run a command with its parsed settings."""
    command = COMMANDS[name]
    options = {}
    for parameter in _options(command):
        kind, is_list = _item_type(parameter.annotation)
        value = settings[parameter.name]
        if kind is Path and value is not None:
            value = [Path(local_path(path)) for path in value] if is_list else Path(local_path(value))
        options[parameter.name] = value
    of_fit = Namespace(**{key: settings[key] for key in vars(fit_parser.get_defaults()) if key in settings})
    context = {"fit_parser": fit_parser, "args": args, "settings": of_fit}
    try:
        command(*(context[parameter.name] for parameter in _parameters(command, positional=True)), **options)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise UserError(f"{error.name} is not installed. {name} needs: {install_command(name)}") from None


def _options(command: Callable[..., None]) -> list[inspect.Parameter]:
    return _parameters(command, positional=False)


def _parameters(command: Callable[..., None], positional: bool) -> list[inspect.Parameter]:
    parameters = inspect.signature(command).parameters.values()
    return [one for one in parameters if (one.kind is one.POSITIONAL_ONLY) is positional]


def _item_type(annotation: Any) -> tuple[Any, bool]:
    """The type of a parameter without None, or of the items of a list; and whether it is a list."""
    if isinstance(annotation, types.UnionType):
        first, *others = (one for one in get_args(annotation) if one is not types.NoneType)
        annotation = first if not others else annotation
    if get_origin(annotation) is list:
        return get_args(annotation)[0], True
    return annotation, False
