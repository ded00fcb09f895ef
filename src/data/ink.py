"""The ink of a digit, separated from paper, shadows, frames and the margins of a picture within a picture."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from src.system.errors import UserError

WORKING_SIZE = 512  # pixels: larger pictures are reduced to this length of the longer side
MIN_CONTRAST = 12  # grey values, of 0…255, between paper and ink
MIN_PIECE = 0.03  # smallest part of a digit, as a fraction of the ink of its largest part
OUTLINE = 0.2  # fraction of full ink at the outline of the digit
MARGIN_NOISE = 16  # grey values by which a uniform margin may vary
MIN_RECTANGLE = 0.92  # fraction of a rectangle that a picture within a picture fills; an ellipse fills 0.79
INK_BESIDE = 0.23  # share of ink close to a picture within a picture; ticks and labels of plots: 0.18, digits: 0.28
ALONG_EDGE = 0.4  # fraction of the outline of a shadow that lies on the edge of the picture
MIN_FRAMED = 1 / 3  # height or width of what a frame encloses, as a fraction of the frame; the dot in a 0 is smaller
SIMILAR = 0.6  # height of another digit beside a digit, as a fraction of its height

Plane = NDArray[np.float64]
Mask = NDArray[np.bool_]

SQUARE = np.ones((3, 3))  # a pixel and its eight neighbours


def find_digit(values: Plane) -> tuple[Plane, int]:
    """Find the digit of a picture, bright on dark or dark on bright.

    Args:
        values: 0…255, grey values (H, W) or colours (H, W, C).

    Returns:
        The ink 0…1 of the digit, cropped; and how many digits are side by side there, usually 1.

    Raises:
        UserError: There is no digit.
    """
    grey_HW = values if values.ndim == 2 else to_grey(values)
    grey_HW = ndimage.gaussian_filter(grey_HW, max(grey_HW.shape) / WORKING_SIZE)  # camera noise
    for box, nearest in _pictures_within(grey_HW):
        try:
            return find_digit(values[box][nearest])
        except UserError:  # only a rectangle, such as a bold 1
            continue
    return _crop(_ink(grey_HW))


def to_grey(colours: Plane) -> Plane:
    """Return the first principal component of colours (…, C): it separates yellow from white, and red from green."""
    _, vectors = np.linalg.eigh(np.cov(colours.reshape(-1, colours.shape[-1]), rowvar=False, bias=True))
    main = vectors[:, -1] * (1 if vectors[:, -1].sum() > 0 else -1)  # bright colours stay bright
    return colours @ (main / np.abs(main).sum())


def _pictures_within(grey_HW: Plane) -> Iterator[tuple[tuple[slice, slice], tuple[Plane, ...]]]:
    """Find a picture that has uniform margins on any side: a letterbox, a border, a photo on a table, a plot.

    Yields:
        Its bounding box, and for each point of the box the row and the column of the nearest point of the picture,
        which may be turned.
    """
    size = max(grey_HW.shape)
    margins: list[float] = []
    for line in (grey_HW[0], grey_HW[-1], grey_HW[:, 0], grey_HW[:, -1]):
        margin = np.median(line)
        if (np.abs(line - margin) > MARGIN_NOISE).mean() > 0.05 or np.isclose(margin, margins, atol=MARGIN_NOISE).any():
            continue
        margins.append(margin)
        picture_HW = _rectangle(np.abs(grey_HW - margin))
        inside_HW = ndimage.binary_erosion(picture_HW, SQUARE, iterations=2 + size // 100, border_value=1)
        if inside_HW.any():
            [box] = ndimage.find_objects(inside_HW.astype(np.int8))
            outside_HW = ~inside_HW[box]
            yield box, tuple(ndimage.distance_transform_edt(outside_HW, return_distances=False, return_indices=True))


def _rectangle(different_HW: Plane) -> Mask:
    """Return the largest piece that differs from the margin if it is a rectangle with sharp edges, else nothing."""
    size = max(different_HW.shape)
    nothing_HW = np.zeros(different_HW.shape, bool)
    found_HW = _largest_piece(different_HW > MARGIN_NOISE)
    if found_HW.all() or found_HW.sum() < found_HW.size / 16:
        return nothing_HW
    jump = np.median(different_HW[found_HW])
    if jump < MARGIN_NOISE:
        return nothing_HW  # hollow: a 0 or a frame
    wide_HW, found_HW = (_largest_piece(different_HW > share * jump) for share in (0.25, 0.5))
    if wide_HW.sum() - found_HW.sum() > size * (1 + size / 200):
        return nothing_HW  # the soft edge of a shadow
    block = max(3, size // 12)
    padded_HW = np.pad(found_HW.astype(np.uint8), block, mode="edge")
    core_HW = ndimage.grey_opening(padded_HW, size=(block, block))[block:-block, block:-block] > 0  # without text
    near_HW, around_HW = (ndimage.binary_dilation(core_HW, SQUARE, iterations=2 + size // part) for part in (200, 50))
    beside = different_HW[around_HW & ~near_HW] > MARGIN_NOISE
    if beside.sum() > INK_BESIDE * beside.size or (found_HW & ~around_HW).sum() > core_HW.sum() / 1000:
        return nothing_HW  # ink reaches into the margin: this is the edge of a shadow
    points_N2 = np.argwhere(core_HW)[:: 1 + size // 32]
    angles = np.radians(np.arange(-15, 16))
    sides = [np.ptp(points_N2 @ [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]], axis=0) + 1 for a in angles]
    return core_HW if core_HW.sum() > MIN_RECTANGLE * np.prod(sides, axis=1).min(initial=np.inf) else nothing_HW


def _largest_piece(mask_HW: Mask) -> Mask:
    """Return the largest connected piece, with its holes and narrow notches filled: ink that touches its edge."""
    labels_HW, count = ndimage.label(mask_HW)
    if not count:
        return mask_HW
    piece_HW = labels_HW == np.bincount(labels_HW.ravel())[1:].argmax() + 1
    block = max(3, np.ptp(np.argwhere(piece_HW), axis=0).max() // 12)
    padded_HW = np.pad(piece_HW.astype(np.uint8), block, mode="edge")
    filled_HW = ndimage.binary_fill_holes(ndimage.grey_closing(padded_HW, size=(block, block)))
    return filled_HW[block:-block, block:-block]


def _ink(grey_HW: Plane) -> Plane:
    """Separate ink (1) from paper (0), for any brightness of both and under uneven light."""
    dark = _is_dark_on_bright(grey_HW)
    ink_HW = _contrast(grey_HW, dark)
    everything_HW = np.full(ink_HW.shape, True)
    if _has_shadow(ink_HW):
        lit_HW = _contrast(grey_HW, dark, extended=True)
        usable_HW = everything_HW
        for _ in range(3):  # behind a dark edge there may be a fainter one
            usable_HW = usable_HW & ~_along_edge(lit_HW, usable_HW)
        noise, full = _levels(lit_HW, usable_HW)
        if full - noise >= MIN_CONTRAST:
            return np.where(usable_HW, np.clip((lit_HW - noise) / (full - noise), 0, 1), 0)
    noise, full = _levels(ink_HW, everything_HW)
    if full - noise < MIN_CONTRAST:
        raise UserError("No digit stands out from the background.")
    return np.clip((ink_HW - noise) / (full - noise), 0, 1)


def _contrast(grey_HW: Plane, dark: bool, extended: bool = False) -> Plane:
    """Return how much ink differs from the paper. Dark ink differs less in a shadow, which is made up for."""
    if not dark:
        return _top_hat(grey_HW, extended)
    ink_HW = _top_hat(-grey_HW, extended)
    light_HW = grey_HW + ink_HW
    return ink_HW * np.clip(np.percentile(light_HW, 90) / np.maximum(light_HW, 1), 1, 3)


def _top_hat(grey_HW: Plane, extended: bool = False) -> Plane:
    """Keep what is brighter than its surroundings and narrower than half the picture. Paper and shadows are wider.

    If `extended`, the points at the edge are repeated outside of the picture: what lies along the edge is wide.
    """
    half = max(grey_HW.shape) // 4
    if not extended:
        return ndimage.white_tophat(grey_HW, size=(2 * half + 1,) * 2)
    padded_HW = np.pad(grey_HW, half, mode="edge")
    inside = slice(half, -half or None)
    return ndimage.white_tophat(padded_HW, size=(2 * half + 1,) * 2, mode="nearest")[inside, inside]


def _levels(ink_HW: Plane, usable_HW: Mask) -> tuple[float, float]:
    """Return the values of paper with its noise and of full ink, among the usable points."""
    if not usable_HW.any():
        return 0, 0
    core_HW = usable_HW & (ink_HW > _otsu(ink_HW[usable_HW]))
    paper = ink_HW[usable_HW & (ndimage.distance_transform_edt(~core_HW) > max(ink_HW.shape) / 16)]
    noise = np.median(paper) + 4 * np.median(np.abs(paper - np.median(paper))) if paper.size else 0
    return float(noise), float(np.percentile(ink_HW[core_HW], 75) if core_HW.any() else 0)


def _mask(ink_HW: Plane, usable_HW: Mask) -> Mask:
    """Return where ink and shadows are, among the usable points."""
    noise, full = _levels(ink_HW, usable_HW)
    return usable_HW & (ink_HW > noise + OUTLINE * max(full - noise, MIN_CONTRAST))


def _has_shadow(ink_HW: Plane) -> bool:
    """Decide whether something covers a side or a corner of the picture, or lies along its edge."""
    usable_HW = np.full(ink_HW.shape, True)
    mask_HW = _mask(ink_HW, usable_HW)
    for turns in range(4):
        turned_HW = np.rot90(mask_HW, turns)
        side, corner = turned_HW[0], [line[: 1 + len(line) // 4].mean() for line in (turned_HW[0], turned_HW[:, 0])]
        if max(side.mean(), min(corner)) > 0.95:
            return True
    return bool(_along_edge(ink_HW, usable_HW).any())


def _along_edge(ink_HW: Plane, usable_HW: Mask) -> Mask:
    """Find pieces along the edge of the usable points: shadows, the dark edge of a scan. A digit only touches it."""
    mask_HW = _mask(ink_HW, usable_HW)
    labels_HW, count = ndimage.label(mask_HW, SQUARE)
    outline_HW = mask_HW & ~ndimage.binary_erosion(mask_HW)
    edge_HW = mask_HW & ~ndimage.binary_erosion(usable_HW)
    pieces = np.arange(1, count + 1)
    edge_P, outline_P = (ndimage.sum_labels(lines_HW, labels_HW, pieces) for lines_HW in (edge_HW, outline_HW))
    along_HW = np.append(False, edge_P > ALONG_EDGE * outline_P)[labels_HW]
    return usable_HW & ndimage.binary_dilation(along_HW, iterations=1 + max(mask_HW.shape) // 100)


def _is_dark_on_bright(grey_HW: Plane) -> bool:
    """Decide whether the ink is darker than the paper, by two votes that are weighted by their clarity.

    First, the surroundings of most points are paper: this holds in shadows. Second, little ink is at the edge of
    the picture: this holds if a bold digit fills the picture.
    """
    coarse_HW = grey_HW[(slice(None, None, -(-max(grey_HW.shape) // 48)),) * 2]
    contrast_HW = coarse_HW - ndimage.median_filter(coarse_HW, size=max(coarse_HW.shape) // 2 + 1)
    dark, bright = np.square(np.minimum(contrast_HW, 0)).sum(), np.square(np.maximum(contrast_HW, 0)).sum()
    edge_dark, edge_bright = (_at_edge(_top_hat(sign * coarse_HW)) for sign in (-1, 1))
    votes = ((dark, bright), (edge_bright, edge_dark))
    return bool(sum((yes - no) / (yes + no + 1) for yes, no in votes) > 0)


def _at_edge(ink_HW: Plane) -> float:
    """Return the mean ink at the edge. What a whole side has in common is a shadow."""
    sides = [side.mean(axis=0) for side in (ink_HW[:2], ink_HW[-2:], ink_HW[:, :2].T, ink_HW[:, -2:].T)]
    return float(np.concatenate([side - side.min() for side in sides]).mean())


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


def _crop(ink_HW: Plane) -> tuple[Plane, int]:
    """Crop to the digit: its largest piece and those near it, without specks, frames and objects at the edge.

    Returns:
        The crop, and how many digits are side by side there.
    """
    labels_HW, _ = ndimage.label(ink_HW > OUTLINE, SQUARE)
    boxes = ndimage.find_objects(labels_HW)
    mass_P = ndimage.sum_labels(ink_HW, labels_HW, np.arange(1, len(boxes) + 1))
    start_P2 = np.array([[side.start for side in box] for box in boxes])
    stop_P2 = np.array([[side.stop for side in box] for box in boxes])
    inside_P = (start_P2 > 0).all(axis=1) & (stop_P2 < ink_HW.shape).all(axis=1)
    if mass_P[inside_P].max(initial=0) < mass_P.max() / 10:
        inside_P = np.full(len(boxes), True)  # the digit itself touches the edge
    inside_P &= _in_frames(labels_HW, boxes, stop_P2 - start_P2)
    main = np.where(inside_P, mass_P, 0).argmax()
    reach = (stop_P2 - start_P2)[main].max() / 4
    large_P = inside_P & (mass_P >= MIN_PIECE * mass_P[main])
    kept_P = np.zeros(len(boxes), bool)
    new_P = np.arange(len(boxes)) == main
    while new_P.any():  # from piece to piece
        kept_P |= new_P
        near_PP = (start_P2[:, None] <= stop_P2[new_P] + reach) & (stop_P2[:, None] >= start_P2[new_P] - reach)
        new_P = large_P & near_PP.all(axis=2).any(axis=1) & ~kept_P
    ink_HW = np.where(np.append(False, ~kept_P)[labels_HW], 0, ink_HW)
    top, left = start_P2[kept_P].min(axis=0)
    bottom, right = stop_P2[kept_P].max(axis=0)
    return ink_HW[top:bottom, left:right], _side_by_side(start_P2, stop_P2, inside_P, int(main))


def _in_frames(labels_HW: NDArray[np.int32], boxes: list[tuple[slice, slice]], size_P2: NDArray[np.int64]) -> Mask:
    """Return for each piece whether it is inside of all frames, such as form fields and circles.

    A frame is hollow and encloses something large.
    """
    inside_P = np.full(len(boxes), True)
    for piece in np.argsort(-size_P2.max(axis=1))[:5]:
        gap = 1 + size_P2[piece].max() // 24  # a box drawn by hand is not always closed
        box_HW = np.pad(labels_HW[boxes[piece]], gap)
        frame_HW = ndimage.binary_dilation(box_HW == piece + 1, SQUARE, iterations=int(gap))
        hole_HW = ndimage.binary_fill_holes(frame_HW) & ~frame_HW
        enclosed = np.setdiff1d(box_HW[hole_HW], (0, piece + 1)) - 1
        if (size_P2[enclosed] > MIN_FRAMED * size_P2[piece]).any():
            inside_P &= np.isin(np.arange(len(boxes)), enclosed)
    return inside_P


def _side_by_side(start_P2: NDArray[np.int64], stop_P2: NDArray[np.int64], inside_P: Mask, main: int) -> int:
    """Count the digits that are as high as the main piece, at the same height; 1 if there is no other."""
    top_P, bottom_P = start_P2[:, 0], stop_P2[:, 0]
    height = bottom_P[main] - top_P[main]
    shared_P = np.minimum(bottom_P, bottom_P[main]) - np.maximum(top_P, top_P[main])
    similar_P = inside_P & (shared_P > SIMILAR * height) & (bottom_P - top_P < height / SIMILAR)
    count, end = 0, -np.inf
    for left, right in sorted(zip(start_P2[similar_P, 1], stop_P2[similar_P, 1], strict=True)):
        count += left > end - (right - left) / 4  # slanted digits overlap
        end = max(end, right)
    return count
