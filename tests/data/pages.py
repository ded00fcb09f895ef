"""Digits of MNIST on pages, for the tests of pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.data.pictures import read_image


def read(picture: Image.Image, folder: Path, name: str = "picture.png", **options: Any) -> np.ndarray:
    picture.save(folder / name, **options)
    return read_image(folder / name).numpy().astype(float)


def likeness(one_HW: np.ndarray, other_HW: np.ndarray) -> float:
    """Return the correlation of two images. One may be shifted by a pixel, because of rounding."""
    shifts = [np.roll(one_HW, (y, x), axis=(0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return max(np.corrcoef(shifted_HW.ravel(), other_HW.ravel())[0, 1] for shifted_HW in shifts)


def page(digit_HW: np.ndarray, dark: bool = True) -> Image.Image:
    """Draw an MNIST digit, ten times enlarged, on a page outside the centre."""
    large = Image.fromarray(digit_HW).resize((280, 280), Image.Resampling.BICUBIC)
    picture = Image.new("L", (480, 360), 0)
    picture.paste(large, (170, 20))
    return picture.point(lambda value: 255 - value) if dark else picture
