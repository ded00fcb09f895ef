"""The answers of a network to the test images: ``answers.npz`` in the run folder, which `compare` reads."""

import hashlib
import shlex
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from src.runs.folder import Run
from src.system.errors import UserError
from src.system.files import replace_when_whole

ANSWERS = "answers.npz"


@dataclass(frozen=True)
class Answers:
    """What a network answers to test images."""

    probabilities_NK: NDArray[np.float32]
    test_set: str  # the digest of images and labels, which tells test sets apart
    labels_N: NDArray[np.int64] | None  # None in an old file, as the others
    classes: list[str] | None
    shape: tuple[int, ...] | None  # of one image, as the network gets it


def digest(images: Tensor | None, labels_N: Tensor) -> str:
    """The SHA-256 of images and labels, or of the labels alone."""
    parts = (part.cpu().contiguous().numpy() for part in (images, labels_N) if part is not None)
    text = "".join(hashlib.sha256(part.tobytes()).hexdigest() for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()


def write_answers(
    folder: Path,
    probabilities_NK: Tensor,
    labels_N: Tensor,
    images: Tensor | None,
    classes: list[str],
    shape: tuple[int, ...],
) -> None:
    """Write ``answers.npz`` into a run folder.

    Args:
        folder: The run folder.
        probabilities_NK: One row for each image.
        labels_N: The labels of the test images.
        images: The test images, uint8; None if the data module does not keep them.
        classes: Names of the classes.
        shape: Of one image, as the network gets it.
    """
    with replace_when_whole(folder / ANSWERS) as file:
        np.savez(
            file,
            probabilities=probabilities_NK.numpy().astype(np.float32),
            test_set=digest(images, labels_N),
            labels=labels_N.numpy(),
            classes=np.array(classes),
            shape=np.array(shape, dtype=np.int64),
        )


def read_answers(run: Run) -> Answers:
    """Read the answers of a run. Raises a `UserError` if they are missing or damaged."""
    path = run.folder / ANSWERS
    # With the config, which may name a network of the user.
    command = shlex.join(
        ["python", "-m", "src", "test", "--config", str(run.config_file), "--ckpt_path", str(run.checkpoint)]
    )
    try:
        with np.load(path) as stored:  # refuses pickles
            has_labels = "labels" in stored
            answers = Answers(
                stored["probabilities"],
                str(stored["test_set"]),
                stored["labels"] if has_labels else None,
                stored["classes"].tolist() if has_labels else None,
                tuple(stored["shape"].tolist()) if has_labels else None,
            )
    except FileNotFoundError:
        raise UserError(f"It has no {ANSWERS}. Write it: {command}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise UserError(f"Its {ANSWERS} is damaged. Write it again: {command}") from None
    if answers.probabilities_NK.ndim != 2:
        raise UserError(f"Its {ANSWERS} is damaged. Write it again: {command}")
    return answers


def has_answers(run: Run) -> bool:
    """Whether a run has answers that can be read."""
    try:
        read_answers(run)
    except UserError:
        return False
    return True
