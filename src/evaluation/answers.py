"""What the networks of a comparison answer: for each test image, and under corruptions. Kept beside each run."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from src.evaluation import corruptions
from src.evaluation.corruptions import CORRUPTIONS, STRENGTHS, choose_images, corrupt
from src.runs.folder import LOCK, Run
from src.runs.network import TrainedNetwork
from src.system.errors import UserError
from src.system.files import locked, replace_when_whole

# A training on another device or number of threads may round a few answers differently.
ROUNDED_IMAGES = 3


@dataclass(frozen=True)
class Evaluation:
    """One run on the test images."""

    probabilities_NK: NDArray[np.float32]
    robustness_CS: NDArray[np.float64]  # share of errors under each corruption in each strength


def evaluate(runs: list[Run], images_NHW: Tensor, labels_N: Tensor) -> tuple[dict[Run, Evaluation], dict[Run, str]]:
    """Evaluate each run on the test images (uint8), or read its evaluation if one of the same inputs is kept.

    Returns:
        The evaluations, and for each run without one the reason.
    """
    found: dict[Run, Evaluation] = {}
    networks: dict[Run, TrainedNetwork] = {}  # still to evaluate
    left_out: dict[Run, str] = {}
    keys: dict[Run, str] = {}
    for run in runs:
        try:
            keys[run] = _key(run, images_NHW, labels_N)
            if (kept := _read(run, keys[run])) is not None:
                found[run] = kept
            else:
                networks[run] = TrainedNetwork(run.checkpoint)
        except UserError as error:
            left_out[run] = str(error)
    for run, new in _evaluate(networks, images_NHW, labels_N).items():
        # Another comparison may evaluate the same runs.
        with locked(run.folder / LOCK), replace_when_whole(_path(run)) as file:
            np.savez(file, key=keys[run], probabilities=new.probabilities_NK, robustness=new.robustness_CS)
        found[run] = new
    left_out |= {run: reason for run in found if (reason := _contradiction(run, found[run], labels_N))}
    return {run: found[run] for run in runs if run not in left_out}, left_out


def _evaluate(networks: dict[Run, TrainedNetwork], images_NHW: Tensor, labels_N: Tensor) -> dict[Run, Evaluation]:
    if not networks:
        return {}
    chosen = choose_images(labels_N)
    robustness = {run: np.zeros((len(CORRUPTIONS), STRENGTHS)) for run in networks}
    n_predictions = len(networks) * (1 + len(CORRUPTIONS) * STRENGTHS)
    with tqdm(total=n_predictions, desc=f"Testing {len(networks)} runs", unit=" test sets") as bar:

        def predict(network: TrainedNetwork, images_NHW: Tensor) -> Tensor:
            bar.update()
            return torch.cat(list(network.probabilities(images_NHW)))

        probabilities = {run: predict(network, images_NHW) for run, network in networks.items()}
        for row, name in enumerate(CORRUPTIONS):
            for step in range(STRENGTHS):
                corrupted_NHW = corrupt(images_NHW[chosen], name, step)
                for run, network in networks.items():
                    answers_N = predict(network, corrupted_NHW).argmax(dim=1)
                    robustness[run][row, step] = (answers_N != labels_N[chosen]).float().mean()
    return {run: Evaluation(probabilities[run].numpy(), robustness[run]) for run in networks}


def _contradiction(run: Run, evaluation: Evaluation, labels_N: Tensor) -> str | None:
    """Return why results.json can't be that of this checkpoint, or None."""
    errors = int((evaluation.probabilities_NK.argmax(axis=1) != labels_N.numpy()).sum())
    tested = run.results["test"]
    if tested["images"] != len(labels_N):
        return f"It was tested on {tested['images']:,} images; this test set has {len(labels_N):,}."
    if abs(errors - tested["errors"]) > ROUNDED_IMAGES:
        changed = "The checkpoint or the data has changed."
        return f"Its checkpoint makes {errors} errors, but its results.json says {tested['errors']}. {changed}"
    return None


def _path(run: Run) -> Path:
    return run.folder / "evaluation.npz"


def _key(run: Run, images_NHW: Tensor, labels_N: Tensor) -> str:
    """Return a hash of all that the evaluation depends on: checkpoint, test images, labels, and corruptions."""
    try:
        checkpoint = run.checkpoint.read_bytes()
    except OSError:
        raise UserError(f"Its checkpoint {run.checkpoint} is missing or can't be read.") from None
    key = hashlib.sha256(corruptions.parameters().encode())
    for part in (images_NHW.numpy().tobytes(), labels_N.numpy().tobytes(), checkpoint):
        key.update(hashlib.sha256(part).digest())
    return key.hexdigest()


def _read(run: Run, key: str) -> Evaluation | None:
    try:
        with np.load(_path(run)) as kept:  # refuses pickles
            if str(kept["key"]) == key:
                return Evaluation(kept["probabilities"], kept["robustness"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # damaged
    print(f"{run.folder}: its kept evaluation is of another checkpoint, test set or version, so it is evaluated again.")
    return None
