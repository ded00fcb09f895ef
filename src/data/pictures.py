"""Pictures of your own: photos, scans and drawings of one digit, converted to images like those of MNIST."""

import glob
import importlib
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError, features
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from src.data.ink import WORKING_SIZE, Plane, find_digit, to_grey
from src.system.errors import UserError

MAX_PIXELS = 2**26  # in memory these are 270 MB, or 900 MB with the copies for transparency

SIZE, DIGIT_SIZE = 28, 20  # pixels: side of an MNIST image, and longer side of the digit in it
MIN_STROKE = 0.1  # fraction of the longer side of the digit; 95 % of the MNIST training images have wider strokes

Image.MAX_IMAGE_PIXELS = None  # `_read` checks MAX_PIXELS instead, after a large JPEG has been reduced


@cache
def formats() -> dict[str, str]:
    """The formats that can be read: their names in Pillow, and as they are shown."""
    known = {name: name for name in ("PNG", "JPEG", "BMP", "TIFF", "GIF", "PPM")} | {"WEBP": "WebP"}
    for name, shown, codec in (("AVIF", "AVIF", "avif"), ("JPEG2000", "JPEG 2000", "jpg_2000")):
        if features.check(codec):  # depends on how Pillow was built
            known[name] = shown
    with suppress(ImportError):  # the optional dependency "heic"
        importlib.import_module("pillow_heif").register_heif_opener()
        known["HEIF"] = "HEIC"
    return known


@dataclass(frozen=True)
class ImageFile:
    """A file that the user named, and its image, (28, 28) uint8, with a warning, or the reason why it can't be read."""

    path: Path
    image_HW: Tensor | None = None
    error: str = ""
    warning: str = ""


def read_images(names: list[str]) -> list[ImageFile]:
    """Read files, folders (with subfolders, without hidden files) and globs, each file once."""
    found = dict(file for name in names for file in _find(name))
    files = []
    for path, error in tqdm(found.items(), desc="Reading images", unit=" images", leave=False, delay=1):
        try:
            if error:
                raise UserError(error)
            image_HW, warning = read_picture(path)
            files.append(ImageFile(path, image_HW, warning=warning))
        except UserError as reason:
            files.append(ImageFile(path, error=str(reason)))
    return files


def _find(name: str) -> list[tuple[Path, str]]:
    """Return the files of a name, each with the reason why it can't be read, or ""."""
    path = Path(name)
    try:
        # Path.glob accepts no absolute patterns.
        matches = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
        if not matches:
            path.stat()  # raises the reason
        return [file for match in matches for file in (_inside(match) if match.is_dir() else [(match, "")])]
    except OSError as error:
        return [(path, f"{error.strerror}.")]


def _inside(folder: Path) -> list[tuple[Path, str]]:
    next(folder.iterdir(), None)  # raises an error if the folder can't be read; rglob would find nothing
    inside = sorted(inner for inner in folder.rglob("*") if not inner.is_dir())
    shown = [inner for inner in inside if not any(part[0] == "." for part in inner.relative_to(folder).parts)]
    return [(inner, "") for inner in shown] or [(folder, "The folder is empty.")]


def read_picture(source: Path | BinaryIO) -> tuple[Tensor, str]:
    """Convert a picture of one digit, bright on dark or dark on bright, to an image like those of MNIST.

    The ink is separated from the paper under uneven light. Margins, frames, specks and objects at the edge are removed,
    and thin strokes are widened. Then the digit is scaled as MNIST's authors did: to 20×20 pixels, antialiased,
    with its aspect ratio, and placed in 28×28 pixels with its centre of mass in the centre.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998.

    Returns:
        (28, 28) uint8, bright on dark; and a warning if several digits seem to be side by side, else "".

    Raises:
        UserError: The file can't be read, is too large or shows no digit.
    """
    digit_HW, count = find_digit(_read(source))
    return _fit(digit_HW), f"{count} digits?" if count > 1 else ""


def read_image(source: Path | BinaryIO) -> Tensor:
    """Convert a picture of one digit, see `read_picture`. Returns: (28, 28) uint8, bright on dark."""
    return read_picture(source)[0]


def to_mnist(values: Plane) -> Tensor:
    """Convert values 0…255 of any size, grey (H, W) or in colours (H, W, 3), see `read_picture`."""
    return _fit(find_digit(values)[0])


def _fit(digit_HW: Plane) -> Tensor:
    """Fit the ink of a digit into an MNIST image."""
    digit_HW = _thicken(digit_HW)
    scale = DIGIT_SIZE / max(digit_HW.shape)
    height, width = (max(1, round(side * scale)) for side in digit_HW.shape)
    resized = Image.fromarray(digit_HW.astype(np.float32)).resize((width, height), Image.Resampling.HAMMING)
    fitted_HW = np.clip(np.asarray(resized), 0, 1)
    image_HW = np.zeros((SIZE, SIZE), np.uint8)
    # In the MNIST training images the centre of mass is within half a pixel of the pixel (14, 14).
    centre = np.rint(ndimage.center_of_mass(fitted_HW)).astype(int)
    top, left = np.clip(SIZE // 2 - centre, 0, (SIZE - height, SIZE - width))
    image_HW[top : top + height, left : left + width] = np.rint(255 * fitted_HW / fitted_HW.max())
    return torch.from_numpy(image_HW)


def _read(source: Path | BinaryIO) -> Plane:
    """Read the first picture of a file, upright, as values 0…255 with at most WORKING_SIZE pixels a side."""
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise UserError("This is not a file.")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(source, formats=[*formats()]) as image:
            width, height = image.size
            if not image.info.get("progressive"):  # a progressive JPEG is always decoded at full size
                scale = WORKING_SIZE / max(width, height)
                image.draft("RGB", (int(width * scale), int(height * scale)))  # decodes a JPEG up to 8 times smaller
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{width:,} × {height:,} pixels are too many. Save it smaller, or as baseline JPEG.")
            ImageOps.exif_transpose(image, in_place=True)
            return _values(image)
    except UnidentifiedImageError:
        known = f"This is not a picture in {', '.join(formats().values())} format."
        heic = "" if "HEIF" in formats() else " HEIC needs: pip install -e '.[heic]'"
        raise UserError(f"{known} If it is a picture, save it as JPEG.{heic}") from None
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise any exception
        reason = isinstance(error, OSError) and error.strerror
        raise UserError(f"{reason}." if reason else "The file is damaged or incomplete.") from None


def _values(image: Image.Image) -> Plane:
    """Reduce a picture to values 0…255, grey (H, W) or in colours (H, W, 3)."""
    factor = -(-max(image.size) // WORKING_SIZE)
    if image.mode[0] in "IF":  # 16 and 32 bits
        values_HW = np.nan_to_num(np.asarray(image.convert("F").reduce(factor), float), posinf=0, neginf=0)
        return 255 * (values_HW - values_HW.min()) / max(np.ptp(values_HW), 1e-9)
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return np.asarray(image.reduce(factor), float)
    rgba_HWC = np.asarray(image.convert("RGBA").reduce(factor), float)
    rgb_HWC, alpha_HW = rgba_HWC[:, :, :3], rgba_HWC[:, :, 3]
    visible_NC = rgb_HWC[alpha_HW > 127]
    if not visible_NC.size:
        raise UserError("The whole picture is transparent.")
    grey_N = to_grey(visible_NC)
    darkest, brightest = np.percentile(grey_N, (5, 95))
    if len(grey_N) < alpha_HW.size and brightest - darkest < 64:
        return alpha_HW  # one colour on a transparent background: the digit is in the alpha channel
    paper = visible_NC[np.argsort(grey_N)[len(grey_N) // 2]]
    return np.where(alpha_HW[:, :, None] > 127, rgb_HWC, paper)


def _thicken(digit_HW: Plane) -> Plane:
    """Widen thin strokes to MIN_STROKE, because they would fade when the digit is reduced."""
    mask_HW = digit_HW > digit_HW.max() / 2
    # In a stroke w pixels wide, the mean distance to its edge is w / 4 + 1 / 2.
    stroke = 4 * ndimage.distance_transform_edt(np.pad(mask_HW, 1))[1:-1, 1:-1][mask_HW].mean() - 2
    missing = (MIN_STROKE * max(digit_HW.shape) - stroke) / 2
    if missing <= 0:
        return digit_HW
    margin = int(np.ceil(missing))
    distance_HW = ndimage.distance_transform_edt(~np.pad(mask_HW, margin))
    return np.maximum(np.pad(digit_HW, margin), np.clip(missing + 1 - distance_HW, 0, 1))
