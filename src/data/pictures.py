"""Pictures of your own: photos, scans and drawings of one digit, converted to images like those of MNIST."""

import glob
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from src.system.errors import UserError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM")
MAX_PIXELS = 2**26  # in memory these are 270 MB, or 900 MB with the copies for transparency
WORKING_SIZE = 512  # pixels: larger pictures are reduced to this length of the longer side

SIZE, DIGIT_SIZE = 28, 20  # pixels: side of an MNIST image, and longer side of the digit in it
MIN_CONTRAST = 12  # grey values, of 0…255, between paper and ink
MIN_PIECE = 0.03  # smallest part of a digit, as a fraction of the ink of its largest part
MIN_STROKE = 0.1  # fraction of the longer side of the digit; 95 % of the MNIST training images have wider strokes
OUTLINE = 0.2  # fraction of full ink at the outline of the digit

Image.MAX_IMAGE_PIXELS = None  # `_read` checks MAX_PIXELS instead, after a large JPEG has been reduced

Plane = NDArray[np.float64]


@dataclass(frozen=True)
class ImageFile:
    """A file that the user named, and its image, (28, 28) uint8, or the reason why it can't be read."""

    path: Path
    image_HW: Tensor | None = None
    error: str = ""


def read_images(names: list[str]) -> list[ImageFile]:
    """Read files, folders (with subfolders, without hidden files) and globs, each file once."""
    found = dict(file for name in names for file in _find(name))
    files = []
    for path, error in tqdm(found.items(), desc="Reading images", unit=" images", leave=False, delay=1):
        try:
            if error:
                raise UserError(error)
            files.append(ImageFile(path, read_image(path)))
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


def read_image(source: Path | BinaryIO) -> Tensor:
    """Convert a picture of one digit, bright on dark or dark on bright, to an image like those of MNIST.

    The ink is separated from the paper under uneven light. Specks and objects at the edge are removed, and
    thin strokes are widened. Then the digit is scaled as MNIST's authors did: to 20×20 pixels, antialiased,
    with its aspect ratio, and placed in 28×28 pixels with its centre of mass in the centre.

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998.

    Returns:
        (28, 28) uint8, bright on dark.

    Raises:
        UserError: The file can't be read, is too large or shows no digit.
    """
    return to_mnist(_read(source))


def to_mnist(grey_HW: Plane) -> Tensor:
    """Convert grey values 0…255 of any size, see `read_image`."""
    digit_HW = _thicken(_crop(_ink(grey_HW)))
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
    """Read the first picture of a file, upright, as grey values 0…255 with at most WORKING_SIZE pixels a side."""
    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise UserError("This is not a file.")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if not image.info.get("progressive"):  # a progressive JPEG is always decoded at full size
                scale = WORKING_SIZE / max(width, height)
                image.draft("RGB", (int(width * scale), int(height * scale)))  # decodes a JPEG up to 8 times smaller
            if image.width * image.height > MAX_PIXELS:
                raise UserError(f"{width:,} × {height:,} pixels are too many. Save it smaller, or as baseline JPEG.")
            ImageOps.exif_transpose(image, in_place=True)
            return _grey(image)
    except UnidentifiedImageError:
        raise UserError("This is not a picture in PNG, JPEG, BMP, TIFF, GIF, WebP or PPM format.") from None
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise any exception
        reason = isinstance(error, OSError) and error.strerror
        raise UserError(f"{reason}." if reason else "The file is damaged or incomplete.") from None


def _grey(image: Image.Image) -> Plane:
    """Reduce a picture to grey values, with as much contrast between ink and paper as its colours allow."""
    factor = -(-max(image.size) // WORKING_SIZE)
    if image.mode[0] in "IF":  # 16 and 32 bits
        values_HW = np.nan_to_num(np.asarray(image.convert("F").reduce(factor), float), posinf=0, neginf=0)
        return 255 * (values_HW - values_HW.min()) / max(np.ptp(values_HW), 1e-9)
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        image, factor = image.reduce(factor), 1  # first, so that the copies below are small
    rgba_HWC = np.asarray(image.convert("RGBA").reduce(factor), float)
    rgb_HWC, visible_HW = rgba_HWC[:, :, :3], rgba_HWC[:, :, 3] > 127
    if not visible_HW.any():
        raise UserError("The whole picture is transparent.")
    # The first principal component of the colours: it separates yellow from white, and red from green.
    _, vectors = np.linalg.eigh(np.cov(rgb_HWC[visible_HW], rowvar=False, bias=True))
    grey_HW = rgb_HWC @ (vectors[:, -1] / np.abs(vectors[:, -1]).sum())
    if visible_HW.all():
        return grey_HW
    darkest, paper, brightest = np.percentile(grey_HW[visible_HW], (5, 50, 95))
    if brightest - darkest < 64:
        return rgba_HWC[:, :, 3]  # one colour on a transparent background: the digit is in the alpha channel
    return np.where(visible_HW, grey_HW, paper)


def _ink(grey_HW: Plane) -> Plane:
    """Separate ink (1) from paper (0), for any brightness of both and under uneven light."""
    grey_HW = ndimage.gaussian_filter(grey_HW, max(grey_HW.shape) / WORKING_SIZE)  # camera noise
    if _is_dark_on_bright(grey_HW):
        grey_HW = -grey_HW
    ink_HW = _top_hat(grey_HW)
    core_HW = ink_HW > _otsu(ink_HW)
    paper = ink_HW[ndimage.distance_transform_edt(~core_HW) > max(grey_HW.shape) / 16]
    noise = np.median(paper) + 4 * np.median(np.abs(paper - np.median(paper))) if paper.size else 0
    full = np.percentile(ink_HW[core_HW], 75) if core_HW.any() else 0
    if full - noise < MIN_CONTRAST:
        raise UserError("No digit stands out from the background.")
    return np.clip((ink_HW - noise) / (full - noise), 0, 1)


def _top_hat(grey_HW: Plane) -> Plane:
    """Keep what is brighter than its surroundings and narrower than half the picture. Paper and shadows are wider."""
    return ndimage.white_tophat(grey_HW, size=(max(grey_HW.shape) // 2 + 1,) * 2)


def _is_dark_on_bright(grey_HW: Plane) -> bool:
    """Decide whether the ink is darker than the paper, by two votes that are weighted by their clarity.

    First, the surroundings of most points are paper: this holds in shadows. Second, little ink is at the edge of
    the picture: this holds if a bold digit fills the picture.
    """
    coarse_HW = grey_HW[(slice(None, None, -(-max(grey_HW.shape) // 48)),) * 2]
    contrast_HW = coarse_HW - ndimage.median_filter(coarse_HW, size=max(coarse_HW.shape) // 2 + 1)
    edge_HW = np.full(coarse_HW.shape, True)
    edge_HW[2:-2, 2:-2] = False
    dark, bright = np.square(np.minimum(contrast_HW, 0)).sum(), np.square(np.maximum(contrast_HW, 0)).sum()
    edge_dark, edge_bright = (_top_hat(sign * coarse_HW)[edge_HW].mean() for sign in (-1, 1))
    votes = ((dark, bright), (edge_bright, edge_dark))
    return bool(sum((yes - no) / (yes + no + 1) for yes, no in votes) > 0)


def _otsu(values: Plane) -> float:
    """Return the threshold that splits the values into two classes with the smallest variance inside the classes.

    Source: N. Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. SMC 9, 1979.
    """
    counts, edges = np.histogram(values, bins=256)
    middles = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts)[:-1], counts.sum()
    sums = np.cumsum(counts * middles)
    between = (sums[:-1] * total - sums[-1] * below) ** 2 / np.maximum(below * (total - below), 1)
    return float(edges[1 + between.argmax()])


def _crop(ink_HW: Plane) -> Plane:
    """Crop to the digit: its largest piece and those near it, without specks and objects at the edge."""
    labels_HW, _ = ndimage.label(ink_HW > OUTLINE, np.ones((3, 3)))
    boxes = ndimage.find_objects(labels_HW)
    mass_P = ndimage.sum_labels(ink_HW, labels_HW, np.arange(1, len(boxes) + 1))
    start_P2 = np.array([[side.start for side in box] for box in boxes])
    stop_P2 = np.array([[side.stop for side in box] for box in boxes])
    inside_P = (start_P2 > 0).all(axis=1) & (stop_P2 < ink_HW.shape).all(axis=1)
    if mass_P[inside_P].max(initial=0) < mass_P.max() / 10:
        inside_P = np.full(len(boxes), True)  # the digit itself touches the edge
    main = np.where(inside_P, mass_P, 0).argmax()
    reach = (stop_P2 - start_P2)[main].max() / 4
    near_P = (start_P2 <= stop_P2[main] + reach).all(axis=1) & (stop_P2 >= start_P2[main] - reach).all(axis=1)
    kept_P = inside_P & near_P & (mass_P >= MIN_PIECE * mass_P[main])
    ink_HW = np.where(np.append(False, ~kept_P)[labels_HW], 0, ink_HW)
    top, left = start_P2[kept_P].min(axis=0)
    bottom, right = stop_P2[kept_P].max(axis=0)
    return ink_HW[top:bottom, left:right]


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
