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

from src.system.errors import UserError


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
