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


def digest(images_NHW: Tensor, labels_N: Tensor) -> str:
    """The SHA-256 of images and labels."""
    parts = (part.cpu().contiguous().numpy() for part in (images_NHW, labels_N))
    text = "".join(hashlib.sha256(part.tobytes()).hexdigest() for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()


def write_answers(folder: Path, probabilities_NK: Tensor, images_NHW: Tensor, labels_N: Tensor) -> None:
    """Write ``answers.npz`` into a run folder.

    Args:
        folder: The run folder.
        probabilities_NK: One row for each image.
        images_NHW: The test images, uint8.
        labels_N: Their labels.
    """
    with replace_when_whole(folder / ANSWERS) as file:
        np.savez(
            file,
            probabilities=probabilities_NK.numpy().astype(np.float32),
            test_set=digest(images_NHW, labels_N),
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
            answers = Answers(stored["probabilities"], str(stored["test_set"]))
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
