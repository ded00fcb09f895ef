"""Run folders: what lies in them, which are finished, which can go on."""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from src.errors import UserError

# What may differ between runs of the same recipe: the seed, and what isn't part of the training.
SEED = frozenset({"seed_everything", "data.seed"})
SURROUNDINGS = frozenset(
    {
        "config",
        "ckpt_path",
        "resume",
        "save_every_n_steps",
        "save_every_n_minutes",
        "data.data_dir",
        "trainer.default_root_dir",
        "trainer.enable_progress_bar",
        "trainer.enable_model_summary",
        "tensorboard",
    }
)


@dataclass(frozen=True)
class Run:
    """One training: the folder that `fit` made."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def is_finished(self) -> bool:
        return (self.folder / "results.json").is_file()

    @property
    def is_busy(self) -> bool:
        """Whether a training is working in it."""
        try:
            with self.locked():
                return False
        except UserError:
            return True

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings it was started with, as plain data: no class named there is imported."""
        return self._read("config.yaml", yaml.safe_load)

    @cached_property
    def results(self) -> dict[str, Any]:
        """What it came to, see `RunSummary`."""
        return self._read("results.json", json.loads)

    def _read(self, name: str, parse: Any) -> dict[str, Any]:
        path = self.folder / name
        try:
            content = parse(path.read_text())
        except FileNotFoundError:
            raise UserError(f"{path} is missing.") from None
        except (OSError, ValueError, yaml.YAMLError):
            content = None
        if not isinstance(content, dict):
            raise UserError(f"{path} is damaged.")
        return content

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of the folder; the system lets go of it when this process ends in any way.

        Raises:
            UserError: Another training has it.
        """
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise UserError(f"{self.folder} is being trained by another process.") from None
        finally:
            os.close(descriptor)


def run_folder(checkpoint: Path) -> Path:
    """The folder of the run that made a checkpoint; of the checkpoint itself where it lies by itself."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def find_runs(folder: Path) -> list[Run]:
    """Every run in `folder` and below, in the order of their numbers."""
    return [Run(path.parent) for path in sorted(folder.rglob("config.yaml"), key=_by_number)]


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def recipe(config: dict[str, Any], ignore: frozenset[str] = SEED | SURROUNDINGS) -> dict[str, Any]:
    """The settings that make a training what it is, one entry for each that is set, as ``trainer.max_epochs``.

    A setting that is null counts as one that isn't there: so runs go on being of the same recipe when a new one comes.
    """

    def flatten(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value and name not in ignore:
            for key, inner in value.items():
                yield from flatten(inner, f"{name}.{key}" if name else str(key))
        elif name not in ignore and value is not None:
            yield name, value

    return dict(flatten(config, ""))


def has_recipe(run: Run, settings: dict[str, Any], ignore: frozenset[str] = SEED | SURROUNDINGS) -> bool:
    """Whether a run was started with these settings; False where its config can't be read."""
    try:
        return recipe(run.config, ignore) == settings
    except UserError:
        return False


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs between two recipes, as ``trainer.max_epochs: 12 and 30``."""
    return [
        f"{name}: {one.get(name)} and {other.get(name)}"
        for name in sorted(one | other)
        if one.get(name) != other.get(name)
    ]
