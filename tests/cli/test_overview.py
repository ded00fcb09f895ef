"""The list of commands, and what needs no import of Lightning."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.cli.overview import HELP
from tests.conftest import ROOT, RunCLI

# As `python -m src`, and then the names of all modules that were imported.
RUN = """
import runpy, sys
try:
    runpy.run_module("src", run_name="__main__", alter_sys=True)
finally:
    print(*sys.modules, file=open("{modules}", "w"))
"""


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ("", 2, "\n  fit       Train a network, then test its last weights.\n"),
        ("--help", 0, "\n  fit       Train a network, then test its last weights.\n"),
        ("fti --config configs/lenet5.yaml", 2, "error: fti is not a command. Did you mean fit?\n"),
        ("12 --help", 2, f"error: 12 is not a command. The commands are {', '.join(HELP)}.\n"),
    ],
)
def test_no_import_of_lightning_for_a_list_of_commands(args: str, code: int, said: str, tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    run = RUN.format(modules=modules)
    done = subprocess.run([sys.executable, "-c", run, *args.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code
    assert said in (done.stderr if code else done.stdout)
    assert not (done.stdout if code else done.stderr)
    imported = {name.partition(".")[0] for name in modules.read_text().split()}
    assert "src" in imported
    assert not imported & {"lightning", "torch", "numpy", "jsonargparse"}


def test_the_list_is_that_of_the_parser(cli: RunCLI) -> None:
    from src.cli.commands import COMMANDS
    from src.cli.main import CLI

    assert list(HELP) == [*CLI.subcommands(), *COMMANDS]
    parsed = re.search(r"\{(.*)\} \.\.\.", cli("--help").out)
    assert parsed and parsed[1].split(",") == list(HELP)
    for name, command in COMMANDS.items():
        assert str(inspect.getdoc(command)).startswith(f"{HELP[name]}\n")
