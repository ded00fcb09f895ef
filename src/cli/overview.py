"""The list of commands. This module imports nothing that takes long, so the list is shown at once."""

import sys
from difflib import get_close_matches

PROGRAM = "python -m src"
DESCRIPTION = "Train and compare small networks on MNIST."
HELP = {
    "fit": "Train a network, then test its last weights.",
    "validate": "Evaluate a checkpoint on the validation images of its run.",
    "test": "Evaluate a checkpoint on the test images.",
    "predict": "Predict your own pictures, or the test images, with one or more checkpoints.",
    "export": "Export a checkpoint to ONNX and torch.export, and check both on the test images.",
    "demo": "Show a page on which you draw digits for one or more networks.",
    "compare": "Compare networks by all their runs: a report with a verdict and error bars.",
    "tune": "Search for settings that make few errors in held-out training images.",
}


def answer(args: list[str]) -> int | None:
    """Answer a command line that needs no import of Lightning: none, ``--help``, or a word that is no command.

    Returns: the exit code, or None for all other command lines.
    """
    if not args or args[0] in ("-h", "--help"):
        commands = "\n".join(f"  {name:<10}{text}" for name, text in HELP.items())
        usage = f"usage: {PROGRAM} COMMAND [options]\n\n{DESCRIPTION}\n\ncommands:\n{commands}\n\n"
        print(f"{usage}{PROGRAM} COMMAND --help lists its options.", file=sys.stdout if args else sys.stderr)
        return 0 if args else 2
    if args[0].startswith("-") or args[0] in HELP:
        return None
    similar = get_close_matches(args[0], HELP, n=1)
    mend = f"Did you mean {similar[0]}?" if similar else f"The commands are {', '.join(HELP)}."
    print(f"error: {args[0]} is not a command. {mend}\nSee: {PROGRAM} --help", file=sys.stderr)
    return 2
