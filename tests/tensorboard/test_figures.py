"""The pictures show what they say."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from src.tensorboard import figures

CLASSES = ["ant", "bee", "cat"]


def words(figure: Figure) -> list[tuple[str, tuple[float, float]]]:
    return [(text.get_text(), text.get_position()) for text in figure.axes[0].texts]


def sheet(figure: Figure) -> np.ndarray[Any, Any]:
    return np.asarray(figure.axes[0].images[0].get_array())


def test_mistakes_are_the_surest_first_each_with_its_image() -> None:
    labels_N = torch.tensor([0, 1, 2, 2, 0])
    probabilities_NK = torch.tensor([[0.3, 0.6, 0.1], [0.0, 1.0, 0.0], [0.9, 0.1, 0.0], [0, 0, 1], [0.25, 0.0, 0.75]])
    images_NHW = torch.arange(5, dtype=torch.uint8)[:, None, None].expand(5, 28, 28) * 10 + 1
    figure = figures.mistakes(images_NHW, labels_N, probabilities_NK, CLASSES)
    assert figure.axes[0].get_title().startswith("3 of 5 test images are wrong")
    assert [text for text, _ in words(figure)] == [
        "label cat\nant, 90.0%",
        "label ant\ncat, 75.0%",
        "label ant\nbee, 60.0%",
    ]
    for (_, (x, y)), image in zip(words(figure), (2, 4, 0), strict=True):
        above = sheet(figure)[round(y) - 28 : round(y), round(x) - 14 : round(x) + 14]
        np.testing.assert_array_equal(above, 255 - images_NHW[image].numpy())


def test_no_mistake_and_more_than_fit() -> None:
    images_NHW, labels_N = torch.zeros(100, 28, 28, dtype=torch.uint8), torch.zeros(100, dtype=torch.long)
    for answer, shown in ((0, 0), (1, 30)):
        probabilities_NK = torch.eye(3)[torch.full((100,), answer)]
        assert len(words(figures.mistakes(images_NHW, labels_N, probabilities_NK, CLASSES))) == shown


def test_confusion_counts_each_pair_of_label_and_answer() -> None:
    labels_N, answers_N = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 0, 2])
    figure = figures.confusion(labels_N, answers_N, CLASSES)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Answer", "Label")
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES
    counts = {(round(label), round(answer)): int(text) for text, (answer, label) in words(figure)}
    assert counts == {(0, 0): 1, (0, 1): 1, (1, 1): 1, (2, 0): 2, (2, 2): 1}
    assert sheet(figure).tolist() == [[0, 1, 0], [0, 0, 0], [2, 0, 0]]


def test_filters_are_the_weights_on_one_scale_around_zero() -> None:
    layer = nn.Conv2d(2, 5, kernel_size=3)
    layer.weight.data = torch.linspace(-1, 2, 90).reshape(5, 2, 3, 3)
    figure = figures.filters("conv", layer)
    low, high = figure.axes[0].images[0].get_clim()
    assert (low, high) == (-2, 2)
    places = [(row, column) for row in range(2) for column in range(8)][:10]
    for (row, column), square_HW in zip(places, layer.weight.detach().reshape(10, 3, 3), strict=True):
        found = sheet(figure)[4 * row : 4 * row + 3, 4 * column : 4 * column + 3]
        np.testing.assert_array_equal(found, square_HW.numpy())
