"""The closing summary: pictures and lines."""

import numpy as np

from src.training.callbacks import describe_result, draw_curves


def test_picture_shows_both_curves_over_epochs() -> None:
    curves = {"train": {1: 0.9, 2: 0.95}, "validation": {1: 0.92, 2: 0.94}, "test": {2: 0.94}}
    (axes,) = draw_curves(curves, "accuracy").axes
    lines = {str(line.get_label()): dict(np.asarray(line.get_xydata()).tolist()) for line in axes.get_lines()}
    assert lines == {"train": curves["train"], "validation": curves["validation"]}
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("Model accuracy", "Epoch", "Accuracy")
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train", "validation"]


def test_result_is_told_as_percentage_and_errors() -> None:
    line = describe_result("LeNet5", "test", {"accuracy": 0.9923, "errors": 77, "images": 10_000, "loss": 0.03641})
    assert line == "LeNet5: test accuracy 99.23% (77 errors in 10,000 images), loss 0.0364"
