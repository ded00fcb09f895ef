"""Digits made harder to read, each in one way and five strengths.

In the spirit of MNIST-C (N. Mu, J. Gilmer, arXiv:1906.02337), but with other corruptions and strengths: the figures
can't be compared with its own.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transform

SEED = 0
STRENGTHS = 5  # of each corruption
IMAGES_PER_CLASS = 200


class Corruption(NamedTuple):
    """How pixels change: a function of images (N, 1, 28, 28) in 0…1, a strength, and a source of random numbers."""

    unit: str
    strengths: tuple[float, float, float, float, float]
    apply: Callable[[Tensor, float, np.random.Generator], Tensor]


def _shift(x_NCHW: Tensor, pixels: float, random: np.random.Generator) -> Tensor:
    def towards(x_NCHW: Tensor, angle: int) -> Tensor:
        right, down = round(pixels * np.cos(np.radians(angle))), round(pixels * np.sin(np.radians(angle)))
        return transform.affine(x_NCHW, angle=0, translate=[right, down], scale=1, shear=[0, 0])

    return _one_of(x_NCHW, (0, 90, 180, 270), towards, random)


def _rotate(x_NCHW: Tensor, degrees: float, random: np.random.Generator) -> Tensor:
    def turned(x_NCHW: Tensor, sign: int) -> Tensor:
        return transform.rotate(x_NCHW, sign * degrees, InterpolationMode.BILINEAR)

    return _one_of(x_NCHW, (1, -1), turned, random)


def _scale(x_NCHW: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    def scaled(x_NCHW: Tensor, sign: int) -> Tensor:
        return transform.affine(
            x_NCHW,
            angle=0,
            translate=[0, 0],
            scale=factor**sign,
            shear=[0, 0],
            interpolation=InterpolationMode.BILINEAR,
        )

    return _one_of(x_NCHW, (1, -1), scaled, random)


def _blur(x_NCHW: Tensor, sigma: float, random: np.random.Generator) -> Tensor:
    return transform.gaussian_blur(x_NCHW, kernel_size=[13, 13], sigma=[sigma, sigma])


def _noise(x_NCHW: Tensor, sigma: float, random: np.random.Generator) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(random.integers(2**32)))
        return transform.gaussian_noise(x_NCHW, sigma=sigma)


def _contrast(x_NCHW: Tensor, factor: float, random: np.random.Generator) -> Tensor:
    return transform.adjust_contrast(x_NCHW, factor)


def _stripes(x_NCHW: Tensor, number: float, random: np.random.Generator) -> Tensor:
    for image_CHW in x_NCHW:
        for row in random.choice(x_NCHW.shape[2], int(number), replace=False):
            transform.erase(image_CHW, int(row), 0, 1, x_NCHW.shape[3], torch.ones(1), inplace=True)
    return x_NCHW


def _holes(x_NCHW: Tensor, side: float, random: np.random.Generator) -> Tensor:
    for image_CHW in x_NCHW:
        # Where the ink is: digits fill the middle 20 × 20 pixels.
        row, column = random.integers(4, 24 - int(side), size=2, endpoint=True)
        transform.erase(image_CHW, int(row), int(column), int(side), int(side), torch.zeros(1), inplace=True)
    return x_NCHW


def _one_of(
    x_NCHW: Tensor, choices: tuple[int, ...], apply: Callable[[Tensor, int], Tensor], random: np.random.Generator
) -> Tensor:
    """Apply a transform in one of several ways, drawn for each image."""
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


def corrupt(images_NHW: Tensor, name: str, step: int) -> Tensor:
    """Apply the corruption `name` in strength number `step` (0…4). The same call gives the same images.

    Args:
        images_NHW: uint8.

    Returns:
        (N, H, W) uint8: changed as pixels of 0…1, clipped, and rounded, as a file of images would be.
    """
    corruption = CORRUPTIONS[name]
    random = np.random.default_rng((SEED, list(CORRUPTIONS).index(name), step))
    x_NCHW = images_NHW.unsqueeze(1).float() / 255
    x_NCHW = corruption.apply(x_NCHW, corruption.strengths[step], random)
    return x_NCHW.clamp(0, 1).mul(255).round().to(torch.uint8).squeeze(1)


def choose_images(labels_N: Tensor) -> Tensor:
    """The fixed images that are corrupted: indices, 200 for each class."""
    order_N = torch.from_numpy(np.random.default_rng(SEED).permutation(len(labels_N)))
    return torch.cat([order_N[labels_N[order_N] == label][:IMAGES_PER_CLASS] for label in labels_N.unique()])
