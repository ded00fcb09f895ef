"""What TensorBoard's IMAGES show of a trained network, each drawn on one pair of axes: it takes a tenth of a second."""

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

COLUMNS, ROWS = 6, 5  # of wrong images


def mistakes(images_NHW: Tensor, labels_N: Tensor, probabilities_NK: Tensor, classes: list[str]) -> Figure:
    """The images that are wrong with the highest confidence, each with label, answer and confidence.

    Args:
        images_NHW: uint8, 0 is paper.
        labels_N: The right classes.
        probabilities_NK: The answers of the network.
        classes: The name of each class.
    """
    confidence_N, answers_N = probabilities_NK.max(dim=1)
    wrong = (answers_N != labels_N).nonzero().flatten()
    shown = wrong[confidence_N[wrong].argsort(descending=True)][: COLUMNS * ROWS].tolist()
    figure = Figure(figsize=(COLUMNS * 0.9, ROWS * 1.1 + 0.6), layout="constrained")
    title = f"{len(wrong):,} of {len(labels_N):,} test images are wrong\nThe surest: label; answer, confidence"
    axes = figure.add_subplot(title=title)
    height, width = images_NHW.shape[1] + 10, images_NHW.shape[2] + 4  # with room for the words
    sheet = np.full((ROWS * height, COLUMNS * width), 255, np.uint8)
    for place, image in enumerate(shown):
        top, left = place // COLUMNS * height, place % COLUMNS * width
        sheet[top : top + height - 10, left : left + width - 4] = 255 - images_NHW[image].numpy()
        words = f"label {classes[labels_N[image]]}\n{classes[answers_N[image]]}, {confidence_N[image]:.1%}"
        axes.text(left + width / 2 - 2, top + height - 10, words, fontsize=7, ha="center", va="top")
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    return figure


def confusion(labels_N: Tensor, answers_N: Tensor, classes: list[str]) -> Figure:
    """How many images of each class got which answer. The shade is that of the errors: right answers would drown them.

    Args:
        labels_N: The right classes.
        answers_N: The classes that the network answered.
        classes: The name of each class.
    """
    K = len(classes)
    counts_KK = np.bincount((labels_N * K + answers_N).numpy(), minlength=K * K).reshape(K, K)
    errors_KK = counts_KK * (1 - np.eye(K))
    figure = Figure(figsize=(4.8, 4.8), layout="constrained")
    axes = figure.add_subplot(title="Test images by label and answer", xlabel="Answer", ylabel="Label")
    axes.imshow(errors_KK, cmap="Oranges", vmin=0, vmax=max(errors_KK.max(), 1))
    for label, answer in zip(*counts_KK.nonzero(), strict=True):
        ink = "gray" if label == answer else "white" if 2 * errors_KK[label, answer] > errors_KK.max() else "black"
        axes.text(answer, label, f"{counts_KK[label, answer]:,}", fontsize=7, ha="center", va="center", color=ink)
    axes.set_xticks(range(K), classes, rotation=0 if max(map(len, classes)) < 4 else 90)
    axes.set_yticks(range(K), classes)
    return figure


def filters(name: str, layer: nn.Conv2d) -> Figure:
    """The weights of a convolution, a square for each pair of output and input channel, on one scale.

    Args:
        name: Of the layer.
        layer: The convolution.
    """
    squares_FHW = layer.weight.detach().float().cpu().flatten(0, 1).numpy()
    columns = min(8, len(squares_FHW))
    rows = -(-len(squares_FHW) // columns)
    height, width = squares_FHW.shape[1] + 1, squares_FHW.shape[2] + 1
    sheet = np.full((rows * height - 1, columns * width - 1), np.nan)
    for place, square_HW in enumerate(squares_FHW):
        top, left = place // columns * height, place % columns * width
        sheet[top : top + height - 1, left : left + width - 1] = square_HW
    reach = np.abs(squares_FHW).max()
    figure = Figure(figsize=(0.55 * columns + 1, 0.55 * rows + 0.5), layout="constrained")
    axes = figure.add_subplot(title=f"Weights of {name}")
    figure.colorbar(axes.imshow(sheet, cmap="RdBu", vmin=-reach, vmax=reach), ax=axes)
    axes.set_axis_off()
    return figure
