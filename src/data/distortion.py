"""Random rotation, scaling, shear and elastic distortion of training images, a whole batch at a time."""

import math
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from src.system.errors import UserError

SPACING = 4.0  # pixels between two of the random vectors from which the elastic displacements come
SMOOTHNESS = 4.0  # standard deviation, in pixels, of the Gaussian that smooths them; Simard et al. use 4


@dataclass(frozen=True)
class Distortion:
    """Random affine and elastic distortions, as functions of random numbers that are drawn beforehand.

    Source: P. Y. Simard, D. Steinkraus, J. C. Platt, "Best practices for convolutional neural networks applied to
    visual document analysis", ICDAR 2003. They smooth a random vector at each pixel. Here the vectors lie `SPACING`
    pixels apart, which needs 1/12 of the random numbers and gives displacements that are as smooth.

    Args:
        max_rotation: Largest angle of rotation, in degrees.
        max_scaling: Largest change in size: with 0.1, the size is multiplied by 0.9 … 1.1.
        max_shear: Largest angle of horizontal shear, in degrees.
        elastic: Standard deviation of the elastic displacements, in pixels, in each direction.

    Raises:
        UserError: A value is negative or too large.
    """

    max_rotation: float = 0.0
    max_scaling: float = 0.0
    max_shear: float = 0.0
    elastic: float = 0.0

    def __post_init__(self) -> None:
        limits = {"max_rotation": 180, "max_scaling": 0.9, "max_shear": 80, "elastic": 100}
        for field in fields(self):
            value, limit = getattr(self, field.name), limits[field.name]
            if not 0 <= value <= limit:
                raise UserError(f"{field.name} is {value}; it must be 0 … {limit}.")

    def draw(self, random: np.random.Generator, n_images: int, height: int, width: int) -> Tensor:
        """Draw the random numbers of a batch: (N, 3 + 2 vectors), of which the first three are in -1 … 1."""
        n_vectors = grid(height) * grid(width) if self.elastic else 0
        uniform_N3 = random.uniform(-1, 1, (n_images, 3))
        normal_NP = random.standard_normal((n_images, 2 * n_vectors), dtype=np.float32)
        return torch.from_numpy(np.concatenate([uniform_N3, normal_NP], axis=1, dtype=np.float32))

    def __call__(self, images_NCHW: Tensor, random_NP: Tensor) -> Tensor:
        """Distort uint8 images (N, C, H, W), each with its own random numbers, and fill with 0.

        Returns:
            float32 (N, C, H, W) in 0 … 255.
        """
        H, W = images_NCHW.shape[-2:]
        if len(images_NCHW) == 0:  # the share of a device may be empty; affine_grid refuses it
            return images_NCHW.float()
        # For each pixel of the result: where it lies in the image, with coordinates from -1 to 1 across and down.
        random_NP = random_NP.float()  # a Trainer of another precision has converted it
        rotation_N, scaling_N, shear_N = random_NP[:, :3].unbind(dim=1)
        angle_N = rotation_N * np.deg2rad(self.max_rotation)
        slope_N = (shear_N * np.deg2rad(self.max_shear)).tan()
        cos_N, sin_N, zero_N = angle_N.cos(), angle_N.sin(), torch.zeros_like(angle_N)
        across = [cos_N, (cos_N * slope_N - sin_N) * (H / W), zero_N]
        down = [sin_N * (W / H), sin_N * slope_N + cos_N, zero_N]
        theta_N23 = (torch.stack(across + down, dim=1) / (1 + self.max_scaling * scaling_N)[:, None]).view(-1, 2, 3)
        where_NHW2 = F.affine_grid(theta_N23, [len(images_NCHW), 1, H, W], align_corners=False)
        if self.elastic:
            vectors_N2GG = random_NP[:, 3:].view(-1, 2, grid(H), grid(W))
            device = images_NCHW.device
            pixels_N2HW = self.elastic * (_basis(H, device) @ vectors_N2GG @ _basis(W, device).T)
            across_NHW, down_NHW = pixels_N2HW.unbind(dim=1)
            where_NHW2 = where_NHW2 + torch.stack([across_NHW * (2 / W), down_NHW * (2 / H)], dim=-1)
        return F.grid_sample(images_NCHW.float(), where_NHW2, align_corners=False)


def grid(size: int) -> int:
    """Return how many random vectors, `SPACING` pixels apart, cover `size` pixels: 8 for 28."""
    return math.ceil(size / SPACING) + 1


@cache
def _basis(size: int, device: torch.device) -> Tensor:
    """Return Gaussians around the points of the grid, (size, grid), scaled so that displacements have variance 1."""
    pixels_H = torch.arange(size) - (size - 1) / 2
    points_G = SPACING * (torch.arange(grid(size)) - (grid(size) - 1) / 2)
    bumps_HG = torch.exp(-((pixels_H[:, None] - points_G) ** 2) / (2 * SMOOTHNESS**2))
    return F.normalize(bumps_HG, dim=1).to(device)
