"""What pip may install, and what make offers."""

import re
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(line)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in group
    if Requirement(line).name != PROJECT["name"]  # the export extra, as a part of dev
]


@pytest.mark.parametrize("name", ["lightning", "pytorch-lightning"])
@pytest.mark.parametrize("compromised", ["2.6.2", "2.6.3"])
def test_compromised_releases_cannot_be_installed(name: str, compromised: str) -> None:
    (requirement,) = [requirement for requirement in REQUIREMENTS if requirement.name == name]
    assert not requirement.specifier.contains(compromised)


def test_every_requirement_has_a_lower_bound_and_a_cap() -> None:
    for requirement in REQUIREMENTS:
        operators = {specifier.operator for specifier in requirement.specifier}
        assert operators == {">=", "<"}, requirement


def test_torch_is_not_required_beyond_what_is_tested() -> None:
    (torch,) = [requirement for requirement in REQUIREMENTS if requirement.name == "torch"]
    assert torch.specifier.contains("2.14.1")


def test_make_help_lists_every_target() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert [line.split()[0] for line in done.stdout.splitlines()] == phony[1].split()
