"""The parser with its error messages in a line or two, and the warnings that are hidden."""

import codecs
import locale
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from src.system.signals import Interrupted

PROGRAM = "python -m src"
NAME_A_CHECKPOINT = "Name a checkpoint: --ckpt_path lightning_logs/lenet5/version_0/checkpoints/last.ckpt"
NAME_A_NETWORK = "Name a network: --config configs/lenet5.yaml, or --model LeNet5"


# A short name means a network of this package, whatever else has that name.
SHORT_NAME = re.compile(
    r"""((?:^|--|[\s{,"'])(?:model|class_path)["']?[:=]\s*["']?)(LeNet5|CNN)(?![\w.])""", re.MULTILINE
)


def with_full_names(text: str) -> str:
    """Replace the short names of networks in a config or an argument."""
    return SHORT_NAME.sub(r"\1src.models.\2", text)


class Parser(LightningArgumentParser):
    """A parser that prints an error in two lines, without the usage of all options.

    Args:
        command_help: One line on each subcommand. Lightning would show the first line of its own docstrings.
    """

    current_file = ""

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

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Namespace:
        with Parser.reading(cfg_path):
            try:
                return super().parse_path(cfg_path, *args, **kwargs)
            except UnicodeDecodeError:
                encoding = locale.getpreferredencoding(False).upper()
                mend = "" if encoding == "UTF-8" else " If it is in UTF-8, set PYTHONUTF8=1."
                self.error(f"It is not a text file in {encoding}.{mend}")

    def parse_string(self, content: str, *args: Any, **kwargs: Any) -> Namespace:
        return super().parse_string(with_full_names(content), *args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        program = parser.prog.replace(" [options]", "") if parser.prog.startswith(PROGRAM) else f"{PROGRAM} fit"
        print(f"error: {self.current_file}{condense(message)}\nSee: {program} --help", file=sys.stderr)
        raise SystemExit(2)


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
    if key[1] == "model":
        if nested := re.match(r"NestedArg\(key='([^']+)'", value[1]):
            return f"--model.{nested[1]} needs a network: name one with --model."
        problem = _problem(message)
        reason = f" ({problem})" if problem else ""
        return (
            f"{value[1]} is not a network{reason}. "
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
