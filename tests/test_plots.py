"""The figures show what they say."""

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn

from src import plots
from src.plots import Tile

CLASSES = ["ant", "bee", "c$t$"]


def texts_of(figure: Figure) -> list[tuple[str, tuple[float, float]]]:
    return [(text.get_text(), text.get_position()) for text in figure.axes[0].texts]


def sheet(figure: Figure) -> np.ndarray[Any, Any]:
    return np.ma.filled(np.ma.asarray(figure.axes[0].images[0].get_array()), np.nan)


def image_between(figure: Figure, title: tuple[float, float], answer: tuple[float, float]) -> np.ndarray[Any, Any]:
    """The pixels between two texts that are one above the other."""
    assert title[0] == answer[0]
    column = sheet(figure)[round(title[1]) : round(answer[1]), round(title[0] - 13.5) : round(title[0] + 14.5)]
    return column[~np.isnan(column).all(axis=1)]


def test_mistakes_have_the_highest_confidence_first_each_with_its_image() -> None:
    labels_N = torch.tensor([0, 1, 2, 2, 0])
    probabilities_NK = torch.tensor([[0.3, 0.6, 0.1], [0.0, 1.0, 0.0], [0.9, 0.1, 0.0], [0, 0, 1], [0.25, 0.0, 0.75]])
    images_NHW = torch.arange(5, dtype=torch.uint8)[:, None, None].expand(5, 28, 28) * 10 + 1
    figure = plots.mistakes(images_NHW, labels_N, probabilities_NK, CLASSES)
    assert figure.axes[0].get_title().startswith("3 of 5 test images are wrong")
    texts = texts_of(figure)
    assert [text for text, _ in texts[::2]] == ["label c$t$", "label ant", "label ant"]
    assert [text for text, _ in texts[1::2]] == ["ant  90.0%", "c$t$  75.0%", "bee  60.0%"]
    for (_, title), (_, answer), image in zip(texts[::2], texts[1::2], (2, 4, 0), strict=True):
        np.testing.assert_array_equal(image_between(figure, title, answer), images_NHW[image].numpy())
    assert figure.axes[0].images[0].get_cmap().name == "gray_r"  # dark digits on a light page


def test_no_mistake_and_more_than_fit() -> None:
    images_NHW, labels_N = torch.zeros(100, 28, 28, dtype=torch.uint8), torch.zeros(100, dtype=torch.long)
    for answer, shown in ((0, 0), (1, 30)):
        probabilities_NK = torch.eye(3)[torch.full((100,), answer)]
        assert len(texts_of(plots.mistakes(images_NHW, labels_N, probabilities_NK, CLASSES))) == 2 * shown


def test_sheet_shows_the_answers_of_each_network_in_its_colour_below_the_right_image() -> None:
    images_NHW = torch.arange(7, dtype=torch.uint8)[:, None, None].expand(7, 28, 28) + 1
    tiles = [Tile(images_NHW[n], f"a$_{n}$.png", [(str(n), 0.5), (str(n + 1), 0.25)]) for n in range(7)]
    figure = plots.digit_sheet(tiles, ["lenet5$_0$", "cnn"], columns=3)
    texts = texts_of(figure)
    for n in range(7):
        (title, above), (first, below), (second, lowest) = texts[3 * n : 3 * n + 3]
        assert (title, first, second) == (f"a$_{n}$.png", f"{n}  50.0%", f"{n + 1}  25.0%")
        assert above[1] < below[1] < lowest[1]
        np.testing.assert_array_equal(image_between(figure, above, below), images_NHW[n].numpy())
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["lenet5$_0$", "cnn"]
    colours = [patch.get_facecolor() for patch in legend.get_patches()]
    assert [to_rgba(text.get_color()) for text in figure.axes[0].texts[1:3]] == colours  # type: ignore[arg-type]
    # A file name with dollar signs is not a formula.
    assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text())  # type: ignore


def test_answers_stand_beside_their_images() -> None:
    images_NHW = torch.stack([torch.full((28, 28), 10 * n, dtype=torch.uint8) for n in (1, 2)])
    probabilities_NK = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.004, 0.996]])
    figure = plots.answers(images_NHW, torch.tensor([1, 2]), probabilities_NK, CLASSES)
    digits, axes = figure.axes
    assert np.asarray(digits.images[0].get_array())[::28, 0].tolist() == [10, 20]
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "25%", (1, 0): "75%", (2, 1): "100%"}  # at (answer, image)
    assert [label.get_text() for label in axes.get_yticklabels()] == CLASSES[1:]
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES


def test_confusion_counts_each_pair_of_label_and_answer() -> None:
    labels_N, answers_N = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 0, 2])
    figure = plots.confusion(labels_N, answers_N, CLASSES)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Answer", "Label")
    assert [label.get_text() for label in axes.get_xticklabels()] == CLASSES
    counts = {(round(label), round(answer)): int(text) for text, (answer, label) in texts_of(figure)}
    assert counts == {(0, 0): 1, (0, 1): 1, (1, 1): 1, (2, 0): 2, (2, 2): 1}
    assert sheet(figure).tolist() == [[0, 1, 0], [0, 0, 0], [2, 0, 0]]


@pytest.mark.parametrize("counts_KK", [np.array([[1200, 0], [3, 7]]), np.array([[0.5, 0.04], [0, 1]])])
def test_means_have_one_decimal_and_zeros_no_number(counts_KK: np.ndarray) -> None:
    figure = Figure()
    plots.draw_confusion(figure.add_subplot(), counts_KK, ["a", "b"], highest=10)
    shown = [text for text, _ in texts_of(figure)]
    assert shown == (["1,200", "3", "7"] if counts_KK.dtype.kind == "i" else ["0.5", "1.0"])
    assert figure.axes[0].images[0].get_clim() == (0, 10)


def lines_of(figure: Figure) -> dict[str, dict[float, float]]:
    (axes,) = figure.axes
    return {str(line.get_label()): dict(np.asarray(line.get_xydata()).tolist()) for line in axes.get_lines()}


def test_training_curves_are_both_sub_runs_over_epochs() -> None:
    points = {"train": {1: 0.9, 2: 0.95}, "validation": {1: 0.92, 2: 0.94}, "test": {2: 0.94}}
    figure = plots.training_curves(points, "accuracy")
    (axes,) = figure.axes
    assert lines_of(figure) == {"train": points["train"], "validation": points["validation"]}
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("Model accuracy", "Epoch", "Accuracy")
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train", "validation"]


def test_a_curve_may_have_a_band() -> None:
    curve = plots.Curve("CNN", [1, 2], [3.0, 2.0], low=[2.5, 1.0], high=[4.0, 2.5])
    figure = plots.curves([curve], "loss", "Loss")
    assert lines_of(figure) == {"CNN": {1: 3, 2: 2}}
    (band,) = figure.axes[0].collections
    vertices = np.asarray(band.get_paths()[0].vertices).tolist()
    assert all([x, y] in vertices for x, y in ((1, 2.5), (2, 1.0), (1, 4.0), (2, 2.5)))


def test_filters_are_the_weights_on_one_scale_around_zero() -> None:
    layer = nn.Conv2d(2, 5, kernel_size=3)
    layer.weight.data = torch.linspace(-1, 2, 90).reshape(5, 2, 3, 3)
    figure = plots.filters("conv", layer)
    low, high = figure.axes[0].images[0].get_clim()
    assert (low, high) == (-2, 2)
    drawn = sheet(figure)
    np.testing.assert_array_equal(np.sort(drawn[~np.isnan(drawn)]), layer.weight.detach().flatten().numpy())
