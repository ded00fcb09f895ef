"""Private names of Lightning, jsonargparse and torch: few, named at the top of their files, and still there."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightning import Trainer
from lightning.pytorch import cli
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loops.fit_loop import _FitLoop

from tests.conftest import ROOT

FILES = [path for path in sorted((ROOT / "src").rglob("*.py")) if path.name != "__main__.py"]
EXISTING = {
    "_parse_ckpt_path": cli.LightningCLI,
    "_data_fetcher": Trainer(accelerator="cpu", logger=False).fit_loop,
    "_load_combined_loader_states": _FitLoop,
    "_get_next_version": TensorBoardLogger,
}


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_")


def private_names(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and names of others that start with an underscore: attributes, imports, overridden methods."""
    tree = ast.parse(path.read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            if not (ast.unparse(node.value) in ("self", "cls") and node.attr in own) and node.attr != "_exit":
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            for part in [*(node.module or "").split("."), *(alias.name for alias in node.names)]:
                if private(part):
                    yield node.lineno, part
        elif isinstance(node, ast.Constant) and node.value in ("_class_path", "_instantiator"):
            yield node.lineno, node.value
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if kind.__module__ == module.__name__:
            for name, method in vars(kind).items():
                if private(name) and inspect.isfunction(method):
                    foreign = [base for base in kind.__mro__[1:] if not base.__module__.startswith("src.")]
                    if any(name in vars(base) for base in foreign):
                        yield method.__code__.co_firstlineno, name


USED = {path: set(private_names(path)) for path in FILES}


def test_private_names_are_few_and_named_at_the_top_of_their_files() -> None:
    assert sum(len({line for line, _ in found}) for found in USED.values()) <= 12
    for path, found in USED.items():
        if found:
            head = path.read_text()[:1000]
            assert "Private names used here:" in head, path
            assert {name for _, name in found if name not in head} == set(), path


@pytest.mark.parametrize("name", sorted({name for found in USED.values() for _, name in found}))
def test_private_names_exist_in_the_installed_versions(name: str) -> None:
    missing = (
        f"The installed version has no {name} any more. Look for it in src/; the files say at the top why it is used."
    )
    if name == "_pytorch_graph":
        assert importlib.util.find_spec(f"torch.utils.tensorboard.{name}"), missing
    elif name in ("_class_path", "_instantiator"):
        assert re.search(rf"[\"']{name}[\"']", inspect.getsource(cli)), missing
    else:
        assert name in EXISTING, f"{name} is not in the list of this test."
        assert hasattr(EXISTING[name], name), missing
