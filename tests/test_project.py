"""What pip may install, and what make offers."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    Requirement(line)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in group
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
    lines = (ROOT / "Makefile").read_text().splitlines()
    phony = next(line for line in lines if line.startswith(".PHONY:")).split()[1:]
    assert [re.match(r"\w+", line)[0] for line in lines if "## " in line and line[0] != "#"] == phony  # type: ignore[index]
