"""What a user reads when something is wrong, and doesn't read when nothing is."""

import logging
import re
import sys
import warnings
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

PROGRAM = "python -m src"
NAME_A_CHECKPOINT = "Name a checkpoint: --ckpt_path lightning_logs/lenet5/version_0/checkpoints/last.ckpt"


class Parser(LightningArgumentParser):
    """A parser that says what is wrong in a line or two, without a page of usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)  # a misspelt option is an error, not a guess
        self.reading = ""

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Namespace:
        self.reading = f"{cfg_path}: "
        settings = super().parse_path(cfg_path, *args, **kwargs)
        self.reading = ""
        return settings

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        program = parser.prog.replace(" [options]", "") if parser.prog.startswith(PROGRAM) else f"{PROGRAM} fit"
        print(f"error: {self.reading}{condense(message)}\nSee: {program} --help", file=sys.stderr)
        raise SystemExit(2)


def condense(message: str) -> str:
    """Say in one line what jsonargparse says in a paragraph."""
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
        reason = re.search(r"No module named .*|is abstract", message)
        return (
            f"{value[1]} is not a network{f' ({reason[0]})' if reason else ''}. "
            "Choose LeNet5 or CNN, or name your own subclass of src.models.Classifier as module.Class."
        )
    types = " or ".join(dict.fromkeys(re.findall(r"Expected an? <class '([\w.]+)'>", message)))
    return f"--{key[1]} {value[1]} is not valid{': expected ' + types if types else ''}."


def silence_noise() -> None:
    """Hide what a user of this package can do nothing about."""
    for message in (
        r".*LeafSpec.* is deprecated",  # between Lightning and torch
        r".*torch.jit.trace.* is deprecated",  # TensorBoard has no other way to a graph
        r".*smaller than the logging interval",  # nothing here is logged by steps
        r"Checkpoint directory .* exists and is not empty",  # that of the run that is resumed
        r".*callbacks used to create the checkpoint need to be provided",  # those of training, in a test
        r"Total length of .GlobalBatches. across ranks is zero",  # pictures of which none can be read
        # Reduced over the devices already, or the same on all of them.
        r".*self.log\('((train|val|test)_(loss|accuracy)|epoch_seconds|learning_rate)', ..., sync_dist=True",
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # "No CUDA runtime": torch's timer asks
    logging.getLogger("torch.fx.experimental.symbolic_shapes").setLevel(logging.ERROR)  # a page if an export fails
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "💡 Tip" not in record.getMessage()  # advertisements
    )
