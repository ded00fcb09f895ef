"""The folder of a run: its files, whether the run is finished, and whether a training is using it."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from filelock import Timeout
from jsonargparse import Namespace

from src.runs.checkpoints import LAST, PREVIOUS
from src.system.errors import UserError
from src.system.files import locked

LOCK = ".lock"
EVENTS = "events.out.tfevents.*"  # TensorBoard's files


@dataclass(frozen=True)
class Run:
    """One training, stored in the folder that `fit` made."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "checkpoints" / LAST

    @property
    def previous_checkpoint(self) -> Path:
        """The checkpoint that the newest one replaced."""
        return self.folder / "checkpoints" / PREVIOUS

    @property
    def config_file(self) -> Path:
        """The settings of the run."""
        return self.folder / "config.yaml"

    @property
    def is_finished(self) -> bool:
        """Whether the run was trained to its end and tested."""
        return (self.folder / "results.json").is_file()

    @property
    def is_busy(self) -> bool:
        """Whether a training is using the folder."""
        try:
            with self.locked():
                return False
        except UserError:
            return True

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.yaml, as plain data: no class named there is imported."""
        return _read(self.config_file, yaml.safe_load)

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of results.json, see `src.training.callbacks.RunSummary`."""
        return _read(self.folder / "results.json", json.loads)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of the folder, or raise a `UserError` if one is there. Ends with this process."""
        try:
            with locked(self.folder / LOCK, timeout=0):
                yield
        except Timeout:
            raise UserError(f"Another process is training in {self.folder}.") from None

    @property
    def is_empty(self) -> bool:
        """Whether no training has written anything."""
        return self.folder.is_dir() and [path.name for path in self.folder.iterdir()] == [LOCK]

    def discard(self) -> None:
        """Remove what a training writes before its first step, and the folders that are empty then.

        For the process that made the folder. Files of others, and the folders with them, stay.
        """
        for pattern in (LOCK, "config.yaml", EVENTS, f"*/{EVENTS}"):
            for path in self.folder.glob(pattern):
                with suppress(OSError):  # Windows keeps a locked file
                    path.unlink()
        for folder in (*self.folder.glob("*/"), self.folder):
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        content = parse(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing.") from None
    except (OSError, ValueError, yaml.YAMLError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged.")
    return content


def run_folder(checkpoint: Path) -> Path:
    """The folder of the run that wrote a checkpoint, or the checkpoint's own folder if it is not part of a run."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def runs_folder(settings: Namespace) -> Path:
    """The folder of all runs of the network in these settings of `fit`.

    It has the name of the class. If runs of another class of that name are there, it has the name with the module.
    """
    root, class_path = Path(settings.trainer.default_root_dir or ".", "lightning_logs"), settings.model.class_path
    folder = root / short_name(class_path).lower()
    for run in find_runs(folder):
        with suppress(UserError):  # a damaged config says nothing
            model = run.config.get("model")
            is_other = isinstance(model, dict) and model.get("class_path") != class_path
            return root / class_path.lower() if is_other else folder
    return folder


def short_name(class_path: str) -> str:
    """The name of a class without its module."""
    return class_path.rpartition(".")[2]


def check_folder_name(name: str | None) -> None:
    """Raise a `UserError` for the value of ``--name`` if it is not the name of a folder."""
    if name is not None and (name in ("", "..") or Path(name).name != name):
        raise UserError(f"--name {name!r} is not the name of a folder.")


def find_runs(folder: Path) -> list[Run]:
    """All runs in `folder` and below, sorted by their numbers."""
    runs, seen = [], set()
    for path, subfolders, files in os.walk(folder, followlinks=True):  # as TensorBoard does
        if (real := os.path.realpath(path)) in seen:  # a link to a folder above would have no end
            subfolders.clear()
            continue
        seen.add(real)
        if "config.yaml" in files:
            runs.append(Run(Path(path)))
    return sorted(runs, key=lambda run: _by_number(run.folder))


def _by_number(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]
