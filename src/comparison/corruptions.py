"""Test images made harder to read: eight corruptions at five levels each, and the errors on them.

In the spirit of MNIST-C (N. Mu, J. Gilmer, arXiv:1906.02337), but with other corruptions and levels: the results
can't be compared with those of MNIST-C.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform
from tqdm import tqdm

from src.runs.folder import Run
from src.runs.network import TrainedNetwork

SEED = 0
LEVELS = 5  # of each corruption
IMAGES_PER_CLASS = 200
BILINEAR = InterpolationMode.BILINEAR


class Corruption(NamedTuple):
    """How pixels change: a function of images (N, 1, 28, 28) in 0…1, a strength, and a random number generator."""

    unit: str
    strengths: tuple[float, float, float, float, float]
    apply: Callable[[Tensor, float, np.random.Generator], Tensor]


def _shift(x_NCHW: Tensor, pixels: float, random: np.random.Generator) -> Tensor:
    step = int(pixels)
    moves = ([step, 0], [0, step], [-step, 0], [0, -step])  # right and down
    return _one_of(x_NCHW, moves, lambda x, move: transform.affine(x, 0, move, 1, [0, 0]), random)


def _rotate(x_NCHW: Tensor, degrees: float, random: np.random.Generator) -> Tensor:
    return _one_of(x_NCHW, (degrees, -degrees), lambda x, angle: transform.rotate(x, angle, BILINEAR), random)


def _scale(x_NCHW: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    factors = (factor, 1 / factor)
    return _one_of(x_NCHW, factors, lambda x, scale: transform.affine(x, 0, [0, 0], scale, [0, 0], BILINEAR), random)


def _blur(x_NCHW: Tensor, sigma: float, random: np.random.Generator) -> Tensor:
    return transform.gaussian_blur(x_NCHW, kernel_size=[13, 13], sigma=[sigma, sigma])


def _noise(x_NCHW: Tensor, sigma: float, random: np.random.Generator) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(random.integers(2**32)))
        return transform.gaussian_noise(x_NCHW, sigma=sigma)


def _contrast(x_NCHW: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    return transform.adjust_contrast(x_NCHW, factor)


def _stripes(x_NCHW: Tensor, rows: float, random: np.random.Generator) -> Tensor:
    for image_CHW in x_NCHW:
        image_CHW[:, random.choice(x_NCHW.shape[2], int(rows), replace=False)] = 1
    return x_NCHW


def _holes(x_NCHW: Tensor, side: float, random: np.random.Generator) -> Tensor:
    side = int(side)
    for image_CHW in x_NCHW:
        # Digits fill the middle 20 × 20 pixels.
        row, column = random.integers(4, 24 - side, size=2, endpoint=True)
        image_CHW[:, row : row + side, column : column + side] = 0
    return x_NCHW


def _one_of(
    x_NCHW: Tensor, choices: Sequence[Any], apply: Callable[[Tensor, Any], Tensor], random: np.random.Generator
) -> Tensor:
    """Transform each image with one of several values, drawn at random."""
    drawn_N = torch.from_numpy(random.integers(len(choices), size=len(x_NCHW)))
    for number, choice in enumerate(choices):
        x_NCHW[drawn_N == number] = apply(x_NCHW[drawn_N == number], choice)
    return x_NCHW


CORRUPTIONS = {
    "shift": Corruption("pixels", (1, 2, 3, 4, 5), _shift),
    "rotation": Corruption("degrees", (5, 10, 20, 30, 45), _rotate),
    "scale": Corruption("factor, up or down", (1.1, 1.2, 1.35, 1.5, 1.75), _scale),
    "blur": Corruption("σ in pixels", (0.5, 1, 1.5, 2, 2.5), _blur),
    "noise": Corruption("σ", (0.1, 0.2, 0.3, 0.4, 0.5), _noise),
    "contrast": Corruption("factor", (0.5, 0.3, 0.2, 0.1, 0.05), _contrast),
    "stripes": Corruption("white rows", (1, 2, 3, 4, 5), _stripes),
    "holes": Corruption("side in pixels", (4, 6, 8, 10, 12), _holes),
}


def corrupt(images_NHW: Tensor, name: str, level: int) -> Tensor:
    """Apply the corruption `name` at `level` (0…4). The same call gives the same images.

    Args:
        images_NHW: uint8.

    Returns:
        (N, H, W) uint8: changed as pixels of 0…1, clipped and rounded, as in an image file.
    """
    corruption = CORRUPTIONS[name]
    random = np.random.default_rng((SEED, list(CORRUPTIONS).index(name), level))
    x_NCHW = images_NHW.unsqueeze(1).float() / 255
    x_NCHW = corruption.apply(x_NCHW, corruption.strengths[level], random)
    return x_NCHW.clamp(0, 1).mul(255).round().to(torch.uint8).squeeze(1)


def choose_images(labels_N: Tensor) -> Tensor:
    """Return the indices of the images that are corrupted: always the same, 200 of each class."""
    order_N = torch.from_numpy(np.random.default_rng(SEED).permutation(len(labels_N)))
    return torch.cat([order_N[labels_N[order_N] == label][:IMAGES_PER_CLASS] for label in labels_N.unique()])


def measure_robustness(runs: list[Run], images_NHW: Tensor, labels_N: Tensor) -> list[NDArray[np.float64]]:
    """Return the error rates (C, L) of each run on corrupted images: under each corruption, at each level.

    Raises:
        UserError: The checkpoint of a run can't be used.
    """
    chosen = choose_images(labels_N)
    corrupted = [[corrupt(images_NHW[chosen], name, level) for level in range(LEVELS)] for name in CORRUPTIONS]
    rates = [np.zeros((len(CORRUPTIONS), LEVELS)) for _ in runs]
    with tqdm(total=len(runs) * len(CORRUPTIONS) * LEVELS, desc="Corrupted images", unit=" test sets") as bar:
        for run, rates_CL in zip(runs, rates, strict=True):
            trained = TrainedNetwork(run.checkpoint)
            for corruption, level in np.ndindex(rates_CL.shape):
                answers_N = torch.cat(list(trained.probabilities(corrupted[corruption][level]))).argmax(dim=1)
                rates_CL[corruption, level] = (answers_N != labels_N[chosen]).double().mean()
                bar.update()
    return rates
