"""What make installs for which target, from which versions."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from src.system.machine import install_command
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def installations(checkout: Path, *args: str) -> list[str]:
    """The installations that make would run for a target, with no other programs than those in the folder."""
    make = str(shutil.which("make"))
    done = subprocess.run(
        [make, "-n", *args], cwd=checkout, env={"PATH": str(checkout)}, capture_output=True, text=True, check=True
    )
    return [line for line in done.stdout.splitlines() if " install " in line]


@pytest.mark.parametrize("target", ["quick", "lenet5", "cnn", "compare", "tensorboard"])
def test_training_installs_no_extra(checkout: Path, target: str) -> None:
    (command,) = installations(checkout, target)
    assert command.startswith(".venv/bin/pip install ") and command.endswith(" -c constraints.txt -e .")


@pytest.mark.parametrize(
    ("target", "extra"), [("demo", "demo"), ("tune", "tune"), ("test", "dev"), ("lint", "dev"), ("setup", "dev")]
)
def test_others_add_what_they_need_once(checkout: Path, target: str, extra: str) -> None:
    core, more = installations(checkout, target)
    assert more == core.removesuffix(".") + f'".[{extra}]"'
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".core").touch()
    assert installations(checkout, target) == [more]
    (checkout / ".venv" / f".{extra}").touch()
    assert installations(checkout, target) == []
    assert installations(checkout, "-W", "constraints.txt", target) == [core, more]


def test_uv_installs_where_it_is_found(checkout: Path) -> None:
    (checkout / "uv").touch(mode=0o755)
    (command,) = installations(checkout, "quick")
    assert command == "uv pip install --python .venv/bin/python -c constraints.txt -e ."


def test_the_newest_versions_are_installed_without_constraints(checkout: Path) -> None:
    assert not [command for command in installations(checkout, "test", "CONSTRAINTS=") if " -c " in command]


def test_constraints_name_a_tested_version_of_every_requirement() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().lower().splitlines())
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for requirement in map(Requirement, group):
            if requirement.name != PROJECT["name"]:
                assert requirement.specifier.contains(pinned[requirement.name]), requirement
    assert all(re.fullmatch(r"\d[\w.]*", version) for version in pinned.values())


def test_the_command_for_an_extra_is_that_of_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    program, *args = shlex.split(install_command("tune"))
    assert os.access(program, os.X_OK) and Path(program).name == "pip"
    assert args == ["install", "-c", "constraints.txt", "-e", ".[tune]"]
