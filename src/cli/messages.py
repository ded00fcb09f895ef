"""The parser with its error messages in a line or two, and the warnings that are hidden."""

import argparse
import codecs
import locale
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from src.cli.overview import PROGRAM
from src.runs.network import import_class
from src.runs.trust import imported_class
from src.system.errors import UserError
from src.system.signals import Interrupted

NAME_A_CHECKPOINT = "Name a checkpoint: --ckpt_path lightning_logs/lenet5/version_0/checkpoints/last.ckpt"
NAME_A_NETWORK = "Name a network: --config configs/lenet5.yaml, or --model LeNet5"


# A short name means a network of this package, whatever else has that name.
SHORT_NAME = re.compile(
    r"""((?:^|--|[\s{,"'])(?:model|class_path)["']?[:=]\s*["']?)(LeNet5|CNN)(?![\w.])""", re.MULTILINE
)


def with_full_names(text: str) -> str:
    """Replace the short names of networks in a config or an argument."""
    return SHORT_NAME.sub(r"\1src.models.\2", text)


def named_class(section: str, args: Any) -> str | None:
    """The class of "model" or "data" that a command line names, itself or in one of its configs."""
    scanner = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    scanner.add_argument(f"--{section}", dest="named", nargs="?")
    scanner.add_argument("--config", "-c", nargs="?", action="append", default=[])
    scanned = scanner.parse_known_args(args)[0]
    for path in [] if scanned.named else scanned.config:
        # The parser reports a config that can't be read.
        with suppress(OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
            setting = yaml.safe_load(with_full_names(Path(path).read_text()))[section]
            scanned.named = setting if isinstance(setting, str) else setting["class_path"]
    return scanned.named


class Parser(LightningArgumentParser):
    """A parser that prints an error in two lines, without the usage of all options.

    Args:
        command_help: One line on each subcommand. Lightning would show the first line of its own docstrings.
    """

    current_file = ""
    args: Any = ()  # the command line
    skips_data = False  # whether settings of a data module without its class are left out of configs

    def __init__(self, *args: Any, command_help: dict[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)  # a misspelt option is an error, not a guess
        self.command_help = command_help or {}
        self.commands: dict[str, Parser] = {}

    def add_subcommands(self, *args: Any, **kwargs: Any) -> Any:
        action: Any = super().add_subcommands(*args, **kwargs)
        register = action.add_subcommand

        def add_command(name: str, parser: Parser, **_: Any) -> None:
            self.commands[name] = parser
            parser.description = self.command_help[name]
            register(name, parser, help=self.command_help[name])

        action.add_subcommand = self.add_command = add_command
        return action

    @classmethod
    @contextmanager
    def reading(cls, path: Any) -> Iterator[None]:
        """Name a file in the errors, also in those of parsers that jsonargparse makes for the arguments of a class."""
        before, cls.current_file = cls.current_file, f"{path}: " if path else ""
        try:
            yield
        finally:
            cls.current_file = before

    def parse_args(self, args: Any = None, namespace: Any = None, *more: Any, **kwargs: Any) -> Any:
        """Parse, with the defaults of the data module that the command line or a config names.

        jsonargparse would give it those of `MNISTDataModule` where the names agree, and the settings of a config that
        names no class, which are those of `MNISTDataModule` too.
        """
        Parser.args = args if self.prog.startswith(PROGRAM) else Parser.args
        if (named := named_class("data", args or [])) is None:
            return super().parse_args(args, namespace, *more, **kwargs)
        with suppress(UserError):  # a wrong name, which is reported below
            named = import_class(named, LightningDataModule)
        skips_data, defaults = Parser.skips_data, []
        for parser in (self, *self.commands.values()):
            data = parser.get_defaults().get("data")
            if data is not None and imported_class(data.class_path, object) is not imported_class(named, object):
                defaults.append((parser, data.as_dict()))
                with suppress(Exception):  # also reported below
                    parser.set_defaults({"data": {"class_path": named}})
        Parser.skips_data |= bool(defaults)
        try:
            return super().parse_args(args, namespace, *more, **kwargs)
        finally:
            Parser.skips_data = skips_data
            for parser, data in defaults:
                parser.set_defaults({"data": data})

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Namespace:
        with Parser.reading(cfg_path):
            try:
                return super().parse_path(cfg_path, *args, **kwargs)
            except UnicodeDecodeError:
                encoding = locale.getpreferredencoding(False).upper()
                mend = "" if encoding == "UTF-8" else " If it is in UTF-8, set PYTHONUTF8=1."
                self.error(f"It is not a text file in {encoding}.{mend}")

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Namespace:
        content = with_full_names(content)
        if Parser.skips_data and isinstance(settings := yaml.safe_load(content), dict):
            data = settings.get("data")
            if isinstance(data, dict) and "class_path" not in data:
                content = yaml.safe_dump({name: value for name, value in settings.items() if name != "data"})
        return super().parse_string(content, *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        program = parser.prog.replace(" [options]", "") if parser.prog.startswith(PROGRAM) else f"{PROGRAM} fit"
        is_part = not parser.prog.startswith(PROGRAM)  # jsonargparse's parser of the arguments of a class
        text = self._with_section(message) if is_part else message
        print(f"error: {self.current_file}{condense(text)}\nSee: {program} --help", file=sys.stderr)
        raise SystemExit(2)

    def _with_section(self, message: str) -> str:
        """Name a setting as the command line does: ``data.batch_size``, not ``batch_size``."""
        key = re.search(r'Parser key "([^"]+)"', message)
        sections = [re.match(rf"--([\w.]+\.){re.escape(key[1])}\b", str(arg)) for arg in self.args] if key else []
        section = next((found[1] for found in sections if found), "")
        return message.replace('Parser key "', f'Parser key "{section}', 1)


def condense(message: str) -> str:
    """Shorten an error message of jsonargparse to one line."""
    if limit := re.search(
        r'Parser key "(\S+)":\s+Not of type \w+: (\S+) does not conform to restriction v(\S+)', message
    ):
        return f"--{limit[1]} {limit[2]} is not valid: it must be {limit[3]}."
    key = re.search(r'Parser key "([^"]+)"', message)
    value = re.search(r"(?:Given|Got) value: (.*)", message)
    if not key or not value:
        return " ".join(re.sub(r'Parser key "([^"]+)"', r"--\1", message).split())
    if key[1] in ("model", "data"):
        if nested := re.match(r"NestedArg\(key='([^']+)'", value[1]):
            return f"--{key[1]}.{nested[1]} needs a class: name one with --{key[1]}."
        problem = _problem(message)
        reason = f" ({problem})" if problem else ""
        given = re.sub(r"^Namespace\(class_path='([^']+)'\)$", r"\1", value[1])
        if key[1] == "data":
            return f"{given} is not a data module{reason}. Name a LightningDataModule of your own as module.Class."
        return (
            f"{given} is not a network{reason}. "
            "Choose LeNet5 or CNN, or name a LightningModule of your own as module.Class."
        )
    types = " or ".join(dict.fromkeys(re.findall(r"Expected an? <class '([\w.]+)'>", message)))
    return f"--{key[1]} {value[1]} is not valid{': expected ' + types if types else ''}."


def _problem(message: str) -> str:
    """The line of an error message of jsonargparse that says more than "wrong type"."""
    lines = [line.strip(" -") for line in message.partition("Errors:")[2].partition("Given value")[0].splitlines()]
    types = ("Expected a <class", "Expected a dot", "Import path", "Problem with", "Does not", "Subtypes", "Errors")
    return next((line for line in lines if line and not line.startswith(types)), "")


def print_error(error: BaseException) -> int:
    """Print why the program ends, without a traceback. Returns: the exit code."""
    rank = rank_zero_only.rank  # type: ignore[attr-defined]
    if isinstance(error, Interrupted):
        if rank:
            return 0  # Lightning kills the first process if another one ends with an error
        print(f"\n{error}", file=sys.stderr)
        return error.exit_code
    print(f"{f'[rank: {rank}] ' if rank else ''}error: {error}", file=sys.stderr)
    return 1


def _similar(error: UnicodeError) -> tuple[str, int]:
    """Replace what an encoding lacks, as for a file on a Western Windows: a minus sign by a hyphen, others by "?"."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end].replace("−", "-")
    return lacking.encode("ascii", "replace").decode(), error.end


class _Output:
    """Standard output that drops the text when nobody reads it any more, as after ``| head``. A training goes on."""

    def __init__(self, stream: TextIOWrapper) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        try:
            self.stream.write(text)
        except BrokenPipeError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def prepare_output() -> None:
    """Hide the warnings that a user of this package can do nothing about, and print any text in any encoding."""
    if isinstance(sys.stdout, TextIOWrapper):
        codecs.register_error("similar", _similar)
        sys.stdout.reconfigure(errors="similar")
        sys.stdout = _Output(sys.stdout)
    for message in (
        r".*LeafSpec.* is deprecated",  # between Lightning and torch
        r".*torch.jit.trace.* is (deprecated|not supported)",  # TensorBoard has no other way to a graph
        r"Using `DistributedSampler` with the dataloaders",  # `Measuring` leaves out the images that it repeats
        r".*smaller than the logging interval",  # nothing is logged by steps
        r"Checkpoint directory .* exists and is not empty",  # of the run that is resumed
        r".*callbacks used to create the checkpoint need to be provided",  # a test does not need those of the training
        r"Total length of .GlobalBatches. across ranks is zero",  # no picture could be read
        # These values are already reduced over the devices.
        r".*self.log\('((train|val|test)_(loss|accuracy)|epoch_seconds|learning_rate)', ..., sync_dist=True",
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # torch's timer looks for CUDA
    logging.getLogger("torch.fx.experimental.symbolic_shapes").setLevel(logging.ERROR)  # a page when an export fails
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "💡 Tip" not in record.getMessage()  # advertisements
    )
