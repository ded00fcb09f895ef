"""The numbers of the sections, from made-up answers, against independent computations."""

from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from scipy import stats

from src.comparison.result import Comparison
from src.models import CNN
from src.report.report import collect_numbers
from src.report.sections import curves, errors
from tests.comparison.made_up import compared, network
from tests.report.conftest import IMAGES, LABELS, runs_with


def test_errors(report: dict[str, Any]) -> None:
    lenet5, cnn = report["networks"]
    assert [run["errors"] for run in lenet5["runs"]] == [40, 48, 44]
    assert (lenet5["errors"]["mean"], lenet5["errors"]["sd"]) == pytest.approx((44, 4))
    low, high = stats.t.interval(0.95, 2, 44, 4 / np.sqrt(3))
    assert (lenet5["errors"]["low"], lenet5["errors"]["high"]) == pytest.approx((low, high))
    assert (lenet5["dropout"], cnn["dropout"]) == (False, True)
    assert cnn["published_errors"] == 84  # 12 epochs, as published
    assert lenet5["published_errors"] is None  # published with 30


@pytest.mark.parametrize("limit", [{}, {"trainer.limit_val_batches": 1}, {"trainer.limit_val_batches": 0.5}])
def test_epochs_that_were_not_validated_on_all_images_are_not_counted(limit: dict[str, Any]) -> None:
    one = network("One", CNN(), LABELS, runs_with((40, 44), seed=0), {"data.val_size": 0} | limit, (0.5, 0.9, 0.95))
    last = curves.Curves().of_network(one)["last_epochs"]
    assert (last is None) == bool(limit)


def test_confusion_and_digits(report: dict[str, Any], comparison: Comparison) -> None:
    cnn = report["networks"][1]
    found = np.array(cnn["confusion"])
    expected = np.zeros((10, 10))
    for probabilities_NK in comparison.networks[1].probabilities_SNK:
        for label, answer in zip(LABELS, probabilities_NK.argmax(axis=1), strict=True):
            expected[label, answer] += 0.5
    np.testing.assert_allclose(found, expected)
    for digit in range(10):
        assert cnn["digits"][digit]["mean"] == pytest.approx(expected[digit, digit] / np.bincount(LABELS)[digit])


def test_images_wrong_in_every_run(report: dict[str, Any], comparison: Comparison) -> None:
    always: dict[str, set[int]] = {}
    for one in comparison.networks:
        for probabilities_NK in one.probabilities_SNK:
            wrong = set(np.flatnonzero(probabilities_NK.argmax(axis=1) != LABELS).tolist())
            always[one.name] = always.get(one.name, wrong) & wrong
    found = {tuple(group["networks"]): set(group["images"]) for group in report["always_wrong"]}
    assert found == {
        ("LeNet5", "CNN"): always["LeNet5"] & always["CNN"],
        ("LeNet5",): always["LeNet5"] - always["CNN"],
        ("CNN",): always["CNN"] - always["LeNet5"],
    }
    assert {0, 1, 2} <= found["LeNet5", "CNN"]


def test_another_data_set_has_its_names_and_no_published_runs(comparison: Comparison) -> None:
    names = [f"<{letter}>" for letter in "ABCDEFGHIJ"]
    networks = [
        network(one.name, one.trained, LABELS, list(one.probabilities_SNK), {"data.classes": names})
        for one in comparison.networks
    ]
    comparison = compared(networks, names)
    report = collect_numbers(comparison)
    assert [network["published_errors"] for network in report["networks"]] == [None, None]
    assert all("2,000 test images" in " ".join(pair["words"]) for pair in report["pairs"])
    (label,) = [image["label"] for image in report["hardest"] if image["image"] == 0]
    drawn = errors.draw_hardest(report, comparison).findobj(Text)
    assert f"label {names[label]}" in [text.get_text() for text in drawn]
    assert any(text.get_text().startswith(f"{names[(label + 1) % 10]}  ") for text in drawn)
    for draw in (errors.draw_confusion, errors.draw_classes):
        axes = draw(report, comparison).axes[0]
        assert [label.get_text() for label in axes.get_xticklabels()] == names


def test_hardest_images_come_first(report: dict[str, Any]) -> None:
    hardest = report["hardest"]
    assert {0, 1, 2} <= {image["image"] for image in hardest if image["wrong"] == 1}
    assert [image["wrong"] for image in hardest] == sorted((image["wrong"] for image in hardest), reverse=True)
    first = next(image for image in hardest if image["image"] == 0)
    assert first["label"] == LABELS[0]
    assert [answer["digit"] for answer in first["answers"]] == [(LABELS[0] + 1) % 10] * 2


def test_last_five_epochs_and_what_the_best_would_have_claimed(report: dict[str, Any]) -> None:
    last = report["networks"][0]["last_epochs"]
    expected = [IMAGES * (1 - np.mean([0.98, 0.985, 0.97, 0.975, 0.98 - 0.001 * seed])) for seed in range(3)]
    assert last["runs"] == pytest.approx(expected)
    assert last["best_epoch_would_claim"] == pytest.approx(
        IMAGES * np.mean([0.99 - 0.98 + 0.001 * seed for seed in range(3)])
    )
    assert report["pairs"][0]["last_epochs"] is not None


def test_curves_have_a_band_over_seeds(report: dict[str, Any]) -> None:
    curve = report["networks"][0]["curves"]["accuracy"]["validation"]
    assert curve["epoch"] == [1, 2, 3, 4, 5, 6, 7]
    assert (curve["low"][-1], curve["mean"][-1], curve["high"][-1]) == pytest.approx((0.978, 0.979, 0.98))


def test_confidence(report: dict[str, Any], comparison: Comparison) -> None:
    nll, brier, ece = [], [], []
    for probabilities_NK in comparison.networks[1].probabilities_SNK:
        probabilities = probabilities_NK.astype(float)
        nll.append(np.mean([-np.log(probabilities[image, LABELS[image]]) for image in range(IMAGES)]))
        brier.append(
            np.mean([sum((p - (k == LABELS[n])) ** 2 for k, p in enumerate(probabilities[n])) for n in range(IMAGES)])
        )
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == LABELS
        in_bin = [(confidence > low / 15) & (confidence <= (low + 1) / 15) for low in range(15)]
        ece.append(sum(b.mean() * abs(right[b].mean() - confidence[b].mean()) for b in in_bin if b.any()))
    found = report["networks"][1]["confidence"]
    for name, expected in (("nll", nll), ("brier", brier), ("ece", ece)):
        assert found[name]["mean"] == pytest.approx(np.mean(expected), rel=1e-4)
        assert found[name]["sd"] == pytest.approx(np.std(expected, ddof=1), rel=1e-2, abs=1e-6)
    assert sum(report["networks"][1]["reliability"]["counts"]) == pytest.approx(IMAGES)
    assert sum(report["networks"][1]["reliability"]["right"]) == pytest.approx(IMAGES - 33)


def test_robustness_and_time(report: dict[str, Any]) -> None:
    lenet5 = report["networks"][0]
    assert lenet5["robustness"]["overall"]["mean"] == pytest.approx(0.2)
    shift = lenet5["robustness"]["corruptions"]["shift"]
    assert (shift["low"][0], shift["mean"][0], shift["high"][0]) == pytest.approx((0.1, 0.2, 0.3))
    assert lenet5["train_seconds"] == {"median": 61, "low": 60, "high": 62}
    assert lenet5["epoch_seconds"] == 40
