"""The numbers of the sections, from made-up answers, against independent computations."""

from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text
from scipy import stats

from src.comparison.result import Comparison
from src.models import CNN
from src.report.page import collect_numbers
from src.report.sections import curves, errors, robustness
from tests.comparison.made_up import compared, contender
from tests.report.conftest import IMAGES, LABELS, runs_with


def test_errors(numbers: dict[str, Any]) -> None:
    cnn, lenet5 = numbers["networks"]
    assert [run["errors"] for run in lenet5["runs"]] == [40, 48, 44]
    assert (lenet5["errors"]["mean"], lenet5["errors"]["sd"]) == pytest.approx((44, 4))
    low, high = stats.t.interval(0.95, 2, 44, 4 / np.sqrt(3))
    assert (lenet5["errors"]["low"], lenet5["errors"]["high"]) == pytest.approx((low, high))
    assert cnn["published_errors"] == 84  # 12 epochs, as published
    assert lenet5["published_errors"] is None  # published with 30


@pytest.mark.parametrize("limit", [{}, {"trainer.limit_val_batches": 1}, {"trainer.limit_val_batches": 0.5}])
def test_epochs_that_were_not_validated_on_all_images_are_not_counted(limit: dict[str, Any]) -> None:
    network = contender(
        "One", CNN(), LABELS, runs_with((40, 44), seed=0), {"data.val_size": 0} | limit, (0.5, 0.9, 0.95)
    )
    last = curves.last_epochs(network)
    assert (last is None) == bool(limit)


def test_confusion_and_digits(numbers: dict[str, Any], comparison: Comparison) -> None:
    cnn = numbers["networks"][0]
    confusion_KK = np.array(cnn["confusion"])
    expected = np.zeros((10, 10))
    for probabilities_NK in comparison.contenders[0].probabilities_SNK:
        for label, answer in zip(LABELS, probabilities_NK.argmax(axis=1), strict=True):
            expected[label, answer] += 0.5
    np.testing.assert_allclose(confusion_KK, expected)
    for digit in range(10):
        assert cnn["digits"][digit]["mean"] == pytest.approx(expected[digit, digit] / np.bincount(LABELS)[digit])


def test_images_wrong_in_every_run(numbers: dict[str, Any], comparison: Comparison) -> None:
    always: dict[str, set[int]] = {}
    for network in comparison.contenders:
        for probabilities_NK in network.probabilities_SNK:
            wrong = set(np.flatnonzero(probabilities_NK.argmax(axis=1) != LABELS).tolist())
            always[network.name] = always.get(network.name, wrong) & wrong
    listed = {tuple(group["networks"]): set(group["images"]) for group in numbers["always_wrong"]}
    expected = {
        ("CNN", "LeNet5"): always["LeNet5"] & always["CNN"],
        ("LeNet5",): always["LeNet5"] - always["CNN"],
        ("CNN",): always["CNN"] - always["LeNet5"],
    }
    assert listed == {names: images for names, images in expected.items() if images}
    assert {0, 1, 2} <= listed["CNN", "LeNet5"]


def test_another_data_set_has_its_names_and_no_published_runs(comparison: Comparison) -> None:
    names = [f"<{letter}>" for letter in "ABCDEFGHIJ"]
    contenders = [
        contender(network.name, network.trained, LABELS, list(network.probabilities_SNK), {"data.classes": names})
        for network in comparison.contenders
    ]
    comparison = compared(contenders, names)
    numbers = collect_numbers(comparison)
    assert [network["published_errors"] for network in numbers["networks"]] == [None, None]
    assert all("2,000 test images" in " ".join(pair["verdict_sentences"]) for pair in numbers["pairs"])
    (label,) = [image["label"] for image in numbers["hardest"] if image["image"] == 0]
    drawn = errors.draw_hardest(numbers, comparison).findobj(Text)
    assert f"label {names[label]}" in [text.get_text() for text in drawn]
    assert any(text.get_text().startswith(f"{names[(label + 1) % 10]}  ") for text in drawn)
    for draw in (errors.draw_confusion, errors.draw_classes):
        axes = draw(numbers, comparison).axes[0]
        assert [label.get_text() for label in axes.get_xticklabels()] == names


def test_hardest_images_come_first(numbers: dict[str, Any]) -> None:
    hardest = numbers["hardest"]
    assert {0, 1, 2} <= {image["image"] for image in hardest if image["wrong"] == 1}
    assert [image["wrong"] for image in hardest] == sorted((image["wrong"] for image in hardest), reverse=True)
    first = next(image for image in hardest if image["image"] == 0)
    assert first["label"] == LABELS[0]
    assert [answer["digit"] for answer in first["answers"]] == [(LABELS[0] + 1) % 10] * 2


def test_last_five_epochs_and_what_the_best_would_have_claimed(numbers: dict[str, Any]) -> None:
    last = numbers["networks"][1]["last_epochs"]
    expected = [IMAGES * (1 - np.mean([0.98, 0.985, 0.97, 0.975, 0.98 - 0.001 * seed])) for seed in range(3)]
    assert last["runs"] == pytest.approx(expected)
    assert last["best_epoch_would_claim"] == pytest.approx(
        IMAGES * np.mean([0.99 - 0.98 + 0.001 * seed for seed in range(3)])
    )
    assert numbers["pairs"][0]["last_epochs"] is not None


def test_curves_have_a_band_over_seeds(numbers: dict[str, Any]) -> None:
    curve = numbers["networks"][1]["curves"]["accuracy"]["validation"]
    assert curve["epoch"] == [1, 2, 3, 4, 5, 6, 7]
    assert (curve["low"][-1], curve["mean"][-1], curve["high"][-1]) == pytest.approx((0.978, 0.979, 0.98))


def test_confidence(numbers: dict[str, Any], comparison: Comparison) -> None:
    nll, brier, ece = [], [], []
    for probabilities_NK in comparison.contenders[0].probabilities_SNK:
        probabilities = probabilities_NK.astype(float)
        nll.append(np.mean([-np.log(probabilities[image, LABELS[image]]) for image in range(IMAGES)]))
        brier.append(
            np.mean([sum((p - (k == LABELS[n])) ** 2 for k, p in enumerate(probabilities[n])) for n in range(IMAGES)])
        )
        confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == LABELS
        in_bin = [(confidence > low / 15) & (confidence <= (low + 1) / 15) for low in range(15)]
        ece.append(sum(b.mean() * abs(right[b].mean() - confidence[b].mean()) for b in in_bin if b.any()))
    calibration = numbers["networks"][0]["confidence"]
    for name, expected in (("nll", nll), ("brier", brier), ("ece", ece)):
        assert calibration[name]["mean"] == pytest.approx(np.mean(expected), rel=1e-4)
        assert calibration[name]["sd"] == pytest.approx(np.std(expected, ddof=1), rel=1e-2, abs=1e-6)
    assert sum(numbers["networks"][0]["reliability"]["counts"]) == pytest.approx(IMAGES)
    assert sum(numbers["networks"][0]["reliability"]["right"]) == pytest.approx(IMAGES - 33)


def test_times_of_the_trainings(numbers: dict[str, Any]) -> None:
    lenet5 = numbers["networks"][1]
    assert lenet5["train_seconds"] == {"median": 61, "low": 60, "high": 62}
    assert lenet5["epoch_seconds"] == 40


def test_robustness_has_a_band_over_the_runs() -> None:
    network = contender("One", CNN(), LABELS, runs_with((40, 44, 41), seed=0))
    assert robustness.of_contender(network) is None
    network.robustness_SCL = np.stack([np.full((8, 5), rate) for rate in (0.1, 0.2, 0.3)])
    rates = robustness.of_contender(network)
    assert rates is not None
    assert rates["overall"]["mean"] == pytest.approx(0.2)
    shift = rates["corruptions"]["shift"]
    assert (shift["low"][0], shift["mean"][0], shift["high"][0]) == pytest.approx((0.1, 0.2, 0.3))


def test_only_sets_of_networks_that_occur_are_listed() -> None:
    cnn = CNN()
    comparison = compared([contender(f"N{n}", cnn, LABELS, runs_with((20,), seed=n)) for n in range(30)])
    sets = errors.always_wrong(comparison.contenders)
    expected = {int(image) for network in comparison.contenders for image in np.flatnonzero(network.wrong_SN[0])}
    assert sorted(image for group in sets for image in group["images"]) == sorted(expected)
    for group in sets:
        for image in group["images"]:
            assert group["networks"] == [
                network.name for network in comparison.contenders if network.wrong_SN[0, image]
            ]
