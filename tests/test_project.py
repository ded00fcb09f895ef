"""The requirements, the make targets, the direction of imports, and what README and docs name."""

import ast
import importlib.util
import inspect
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT, RunCLI

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


# --- Imports -----------------------------------------------------------------------------------------------------

LEVELS = [  # from top to bottom: a package imports only itself and packages below
    {"cli"},
    {"report", "tuning"},
    {"comparison"},
    {"training", "inference"},
    {"runs"},
    {"data", "models", "tensorboard"},
    {"plots"},
    {"system"},
]


def imported_packages(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "src":
            modules |= {f"src.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
    return {module.split(".")[1] for module in modules if module.startswith("src.")}


@pytest.mark.parametrize("level", range(len(LEVELS)), ids=lambda level: "+".join(sorted(LEVELS[level])))
def test_imports_go_one_way(level: int) -> None:
    below = set().union(*LEVELS[level + 1 :])
    for package in LEVELS[level]:
        paths = sorted((ROOT / "src" / package).rglob("*.py")) or [ROOT / "src" / f"{package}.py"]
        for path in paths:
            wrong = imported_packages(path) - below - {package}
            assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(wrong)}"


def test_every_package_has_a_level() -> None:
    found = {path.stem for path in (ROOT / "src").iterdir() if not path.name.startswith("__")}
    assert found == set().union(*LEVELS)


# --- README and docs --------------------------------------------------------------------------------------------

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
all_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", "docs/architecture.md"])
def test_a_page_to_start_with_has_at_most_120_lines(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= 120


def test_readme_links_every_page() -> None:
    readme = PAGES[0].read_text()
    for page in PAGES[1:]:
        assert f"({page.relative_to(ROOT)})" in readme, f"README.md doesn't link {page.relative_to(ROOT)}"


@all_pages
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"\w+:", link):  # a web address
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name} links {link}"
            assert not anchor or anchor in anchors(target), f"{page.name} links {link}"


@all_pages
def test_named_paths_exist(page: Path) -> None:
    text = re.sub(r"`[^`]+` at\s+commit", "", page.read_text())  # such files are in the history
    for path in re.findall(r"(?<![\w/.])(?:benchmarks|configs|docs|src|tests)/[\w./-]*\w/?", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


@all_pages
def test_named_modules_exist(page: Path) -> None:
    for module in re.findall(r"python -m (benchmarks[\w.]*)", page.read_text()):
        assert importlib.util.find_spec(module), f"{page.name} names {module}"


@all_pages
def test_named_make_targets_exist(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:`|^    )make ([\w-]+)", page.read_text(), re.MULTILINE):
        assert target in targets, f"{page.name} names make {target}"


@all_pages
def test_named_tests_exist(page: Path) -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+…?)`", page.read_text()):
        start = f"def {name.removesuffix('…')}" if name.endswith("…") else f"def {name}("
        assert start in tests, f"{page.name} names {name}"


def test_named_options_exist(cli: RunCLI) -> None:
    from src.cli.main import HELP
    from src.models import Classifier

    known = "".join(cli(name, "--help").out for name in HELP)
    known += cli("fit", "--data.help").out
    known += "".join(f"--model.{name} " for name in inspect.signature(Classifier.__init__).parameters)
    for page in PAGES:
        for name in re.findall(r"--((?:data|model|tensorboard|trainer)\.\w+)", page.read_text()):
            assert re.search(rf"--{re.escape(name)}\b", known), f"{page.name} names --{name}"


def test_the_example_from_python_runs(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two batches of each kind."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    limits = ", ".join(f"limit_{stage}_batches=2" for stage in ("train", "val", "test"))
    (tmp_path / "data").symlink_to(mnist)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example.replace("max_epochs=1", f"max_epochs=1, {limits}"), names)
    assert names["trainer"].global_step == 2
    tested = names["trainer"].callback_metrics["test_accuracy"]
    assert names["trainer"].test(names["network"], names["data"])[0]["test_accuracy"] == pytest.approx(tested.item())
