"""Figures that several parts of the program draw: sheets of digits, confusion matrices, curves over epochs, filters.

All use the Figure and Axes API of matplotlib, without pyplot, and the colours of the current style.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_confusion_matrix
from torchvision.utils import make_grid

PLAIN_TEXT = rc_context({"text.parse_math": False})  # a file or a class named "$a$" is not a formula
LINE = 0.17  # inches: height of a line of text below or above a digit
GAP = 4  # pixels between two digits


class Tile(NamedTuple):
    """One image of a sheet."""

    image: Tensor  # uint8, (H, W) or (C, H, W); of grey ones, 0 is background
    title: str
    answers: Sequence[tuple[str, float]]  # class and confidence, one for each network


@PLAIN_TEXT
def digit_sheet(
    tiles: Sequence[Tile],
    networks: Sequence[str] = (),
    title: str = "",
    columns: int = 6,
    tile_width: float = 0.93,
    colormap: str = "gray_r",
) -> Figure:
    """Draw digits in rows, each with its title above and the answers of the networks below.

    Args:
        tiles: The digits, all of one size.
        networks: Names for the legend. Without them, the answers are those of one network and need no colours.
        title: The title of the figure.
        columns: How many digits a row has.
        tile_width: Width of a digit with its gap, in inches.
        colormap: "gray_r" for dark digits on a light background, "gray" for the opposite.
    """
    H, W = tiles[0].image.shape[-2:] if tiles else (28, 28)
    rows = max(1, -(-len(tiles) // columns))
    n_answers = max((len(tile.answers) for tile in tiles), default=1)
    # Lengths below are in pixels of the digits, the unit of the axes.
    width = W + GAP
    inch = width / tile_width
    line = LINE * inch
    height = H + GAP + round((1 + n_answers) * line)
    extra = 0.65 * bool(title) + 0.2 * -(-len(networks) // 2)  # inches
    figure = Figure((max(3.0, columns * tile_width), rows * height / inch + extra), layout="constrained")
    axes = figure.add_subplot(title=title)
    pixels = [as_pixels(tile.image) for tile in tiles]
    colours = pixels[0].shape[2:] if pixels else ()
    sheet = np.full((rows * height, columns * width, *colours), 1.0 if colours else np.nan)
    for place, (tile, image) in enumerate(zip(tiles, pixels, strict=True)):
        row, column = place // columns * height + round(line) + GAP // 2, place % columns * width + GAP // 2
        sheet[row : row + H, column : column + W] = image
        style: Any = {"x": column + W / 2 - 0.5, "fontsize": 7, "ha": "center", "va": "center"}
        axes.text(y=row - 0.5 - line / 2, s=tile.title, **style)
        for number, (answer, confidence) in enumerate(tile.answers):
            colour: Any = {"color": f"C{number % 6}", "weight": "bold"} if networks else {}
            axes.text(y=row + H + (number + 0.5) * line, s=f"{answer}  {confidence:.1%}", **style, **colour)
    axes.imshow(sheet, cmap=colormap, vmin=0, vmax=255)
    axes.set_axis_off()
    if networks:
        squares = [Patch(color=f"C{number % 6}", label=name) for number, name in enumerate(networks)]
        figure.legend(handles=squares, loc="outside lower center", ncols=2, frameon=False)
    return figure


def mistakes(images: Tensor, labels_N: Tensor, probabilities_NK: Tensor, classes: Sequence[str]) -> Figure:
    """Draw the 30 images, uint8 (N, H, W) or (N, C, H, W), that a network gets wrong with the highest confidence."""
    confidence_N, answers_N = probabilities_NK.max(dim=1)
    wrong = (answers_N != labels_N).nonzero().flatten()
    shown = wrong[confidence_N[wrong].argsort(descending=True)][:30].tolist()
    tiles = [
        Tile(images[n], f"label {classes[int(labels_N[n])]}", [(classes[int(answers_N[n])], float(confidence_N[n]))])
        for n in shown
    ]
    title = f"{len(wrong):,} of {len(labels_N):,} test images are wrong\nHighest confidence first"
    return digit_sheet(tiles, title=title)


def as_pixels(image: Tensor) -> NDArray[Any]:
    """An image for `imshow`: uint8 (H, W), or of three channels (H, W, 3) in 0…1. Of other images the mean channel."""
    if image.ndim == 2:
        return image.numpy()
    return image.permute(1, 2, 0).numpy() / 255 if len(image) == 3 else image.float().mean(dim=0).numpy()


@PLAIN_TEXT
def answers(images: Tensor, labels_N: Tensor, probabilities_NK: Tensor, classes: Sequence[str]) -> Figure:
    """Draw the probability of each class for a few images, uint8 (N, H, W) or (N, C, H, W)."""
    N, K = probabilities_NK.shape
    figure = Figure(figsize=(1 + 0.4 * K, 0.6 + 0.4 * N), layout="constrained")
    digits, axes = figure.subplots(1, 2, width_ratios=[1, K])
    digits.imshow(np.concatenate([as_pixels(image) for image in images]), cmap="gray_r", vmin=0, vmax=255)
    digits.set_axis_off()
    axes.imshow(probabilities_NK.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for image, answer in np.argwhere(probabilities_NK.numpy() >= 0.005):
        probability = float(probabilities_NK[image, answer])
        colour = "white" if probability > 0.5 else "black"
        axes.text(answer, image, f"{probability:.0%}", fontsize=7, ha="center", va="center", color=colour)
    axes.set(title="Probability of each class", xlabel="Answer", ylabel="Label")
    label_classes(axes, classes)
    axes.set_yticks(range(N), [classes[label] for label in labels_N.tolist()])
    return figure


@PLAIN_TEXT
def confusion(labels_N: Tensor, answers_N: Tensor, classes: Sequence[str]) -> Figure:
    """Draw how many images of each class got which answer. Tensors hold the numbers of classes."""
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.add_subplot(title="Test images by label and answer")
    draw_confusion(axes, multiclass_confusion_matrix(answers_N, labels_N, len(classes)).numpy(), classes)
    return figure


def draw_confusion(
    axes: Axes, counts_KK: NDArray[Any], classes: Sequence[str], highest: float | None = None, fontsize: float = 7
) -> None:
    """Draw a confusion matrix. Only errors are shaded, because the right answers are many more.

    Args:
        axes: Where to draw.
        counts_KK: Images by label (row) and answer (column). Means have one decimal place.
        classes: The name of each class.
        highest: The number with the darkest shade; by default that of the largest error.
        fontsize: Of the numbers.
    """
    K = len(classes)
    errors_KK = counts_KK * (1 - np.eye(K))
    colours = LinearSegmentedColormap.from_list("", [axes.get_facecolor(), "C0"])
    shades = axes.imshow(errors_KK, colours, vmin=0, vmax=max(highest or errors_KK.max(), 1e-9))
    decimals = 0 if np.issubdtype(counts_KK.dtype, np.integer) else 1
    for label, answer in np.argwhere(counts_KK >= 0.05):
        red, green, blue, _ = shades.to_rgba(errors_KK[label, answer])
        ink = "gray" if label == answer else "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
        text = f"{counts_KK[label, answer]:,.{decimals}f}"
        axes.text(answer, label, text, fontsize=fontsize, ha="center", va="center", color=ink)
    axes.set(xlabel="Answer", ylabel="Label")
    label_classes(axes, classes)
    axes.set_yticks(range(K), classes)
    axes.grid(visible=False)


def label_classes(axes: Axes, classes: Sequence[str]) -> None:
    """Name the classes on the x axis, upright where the names are long."""
    rotation = 90 if max(map(len, classes)) > 1 else 0
    axes.set_xticks(range(len(classes)), classes, rotation=rotation)


class Curve(NamedTuple):
    """One line of a plot over epochs, with a band between `low` and `high`."""

    label: str
    epochs: Sequence[float]
    values: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    style: Mapping[str, Any] = {}  # of the line


def curves(lines: Sequence[Curve], metric: str, title: str, figsize: tuple[float, float] = (7, 5)) -> Figure:
    """Draw one metric, "accuracy" or "loss", over the epochs."""
    figure = Figure(figsize, layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="Epoch", ylabel=metric.capitalize())
    for line in lines:
        (drawn,) = axes.plot(line.epochs, line.values, label=line.label, **{"markersize": 3, **line.style})
        if line.low is not None and line.high is not None:
            axes.fill_between(line.epochs, line.low, line.high, color=drawn.get_color(), alpha=0.2, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def training_curves(points: Mapping[str, Mapping[int, float]], metric: str) -> Figure:
    """Draw one metric of one training, from the value of each epoch in the sub-runs "train" and "validation"."""
    lines = [
        Curve(name, list(points[name]), list(points[name].values()), style={"marker": marker})
        for name, marker in (("train", "o"), ("validation", "s"))
    ]
    return curves(lines, metric, f"Model {metric}")


def filters(name: str, layer: nn.Conv2d) -> Figure:
    """Draw the weights of a convolution: a square for each pair of output and input channel, on one scale."""
    squares_F1HW = layer.weight.detach().float().cpu().flatten(0, 1)[:, None]
    columns = min(8, len(squares_F1HW))
    rows = -(-len(squares_F1HW) // columns)
    sheet = make_grid(squares_F1HW, nrow=columns, padding=1, pad_value=np.nan)[0, 1:-1, 1:-1].numpy()
    limit = squares_F1HW.abs().max().item()
    figure = Figure(figsize=(0.55 * columns + 1, 0.55 * rows + 0.5), layout="constrained")
    axes = figure.add_subplot(title=f"Weights of {name}")
    figure.colorbar(axes.imshow(sheet, cmap="RdBu", vmin=-limit, vmax=limit), ax=axes)
    axes.set_axis_off()
    return figure
