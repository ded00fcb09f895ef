"""The numbers of a report, from answers that were made up, against independent computations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.text import Text
from scipy import stats

from src.comparison.groups import Group
from src.comparison.numbers import collect
from src.comparison.statistics import BETTER
from src.evaluation.answers import Evaluation
from src.models import CNN, LeNet5
from src.report import figures
from src.report.report import write_report
from src.runs.folder import Run

IMAGES = 2000
RANDOM = np.random.default_rng(0)
CLASSES = list("0123456789")
LABELS = RANDOM.integers(10, size=IMAGES)


def answers(errors: int) -> np.ndarray:
    """Probabilities of a run that is wrong about images 0, 1, 2 and some others."""
    logits_NK = 4 * np.eye(10)[LABELS] + RANDOM.normal(size=(IMAGES, 10))
    logits_NK = logits_NK - 20 * (logits_NK.argmax(1) != LABELS)[:, None] * (1 - np.eye(10)[LABELS])  # none wrong yet
    wrong = [0, 1, 2, *RANDOM.choice(np.arange(3, IMAGES), errors - 3, replace=False)]
    logits_NK[wrong, (LABELS[wrong] + 1) % 10] = 9
    return F.softmax(torch.from_numpy(logits_NK).float(), dim=1).numpy()


def results(model: str, seed: int, val_accuracy: list[float]) -> dict[str, Any]:
    points = {str(epoch): value for epoch, value in enumerate(val_accuracy, start=1)}
    seconds = {str(epoch): 10.0 * epoch for epoch in range(1, 8)}
    return {
        "model": model,
        "parameters": 5,
        "epochs": 12,
        "seed": seed,
        "train_seconds": 60.0 + seed,
        "curves": {
            "accuracy": {"train": points, "validation": points},
            "loss": {"train": points, "validation": points},
            "epoch_seconds": {"train": seconds},
        },
    }


@pytest.fixture(scope="module")
def evaluations() -> dict[Run, Evaluation]:
    runs: dict[Run, Evaluation] = {}
    for model, numbers in {"LeNet5": (40, 48, 44), "CNN": (30, 36)}.items():
        for seed, errors in enumerate(numbers):
            run = Run(Path(model, str(seed)))
            accuracy = [0.5, 0.99, 0.98, 0.985, 0.97, 0.975, 0.98 - 0.001 * seed]
            run.__dict__["results"] = results(model, seed, accuracy)
            runs[run] = Evaluation(answers(errors), np.full((8, 5), 0.1 * (seed + 1)))
    return runs


@pytest.fixture(scope="module")
def report(evaluations: dict[Run, Evaluation]) -> dict[str, Any]:
    settings = {"data.val_size": 0, "trainer.limit_val_batches": None}
    groups = [
        Group(model, settings, [run for run in evaluations if run.folder.parent.name == model])
        for model in ("LeNet5", "CNN")
    ]
    return collect(groups, evaluations, [LeNet5(), CNN()], LABELS, CLASSES, margin=10)


def test_errors(report: dict[str, Any]) -> None:
    lenet5, cnn = report["networks"]
    assert [run["errors"] for run in lenet5["runs"]] == [40, 48, 44]
    assert (lenet5["errors"]["mean"], lenet5["errors"]["sd"]) == pytest.approx((44, 4))
    low, high = stats.t.interval(0.95, 2, 44, 4 / np.sqrt(3))
    assert (lenet5["errors"]["low"], lenet5["errors"]["high"]) == pytest.approx((low, high))
    assert (lenet5["dropout"], cnn["dropout"]) == (False, True)
    assert cnn["published_errors"] == 84  # 12 epochs, as published
    assert lenet5["published_errors"] is None  # published with 30


def test_confusion_and_digits(report: dict[str, Any], evaluations: dict[Run, Evaluation]) -> None:
    cnn = report["networks"][1]
    found = np.array(cnn["confusion"])
    expected = np.zeros((10, 10))
    for run, evaluation in evaluations.items():
        if run.folder.parent.name == "CNN":
            for label, answer in zip(LABELS, evaluation.probabilities_NK.argmax(axis=1), strict=True):
                expected[label, answer] += 0.5
    np.testing.assert_allclose(found, expected)
    for digit in range(10):
        assert cnn["digits"][digit]["mean"] == pytest.approx(expected[digit, digit] / np.bincount(LABELS)[digit])


def test_images_wrong_in_every_run(report: dict[str, Any], evaluations: dict[Run, Evaluation]) -> None:
    always: dict[str, set[int]] = {}
    for run, evaluation in evaluations.items():
        wrong = set(np.flatnonzero(evaluation.probabilities_NK.argmax(axis=1) != LABELS).tolist())
        always[run.folder.parent.name] = always.get(run.folder.parent.name, wrong) & wrong
    found = {tuple(group["networks"]): set(group["images"]) for group in report["always_wrong"]}
    assert found == {
        ("LeNet5", "CNN"): always["LeNet5"] & always["CNN"],
        ("LeNet5",): always["LeNet5"] - always["CNN"],
        ("CNN",): always["CNN"] - always["LeNet5"],
    }
    assert {0, 1, 2} <= found["LeNet5", "CNN"]


def test_another_data_set_has_its_names_and_no_published_runs(evaluations: dict[Run, Evaluation]) -> None:
    names = [f"<{letter}>" for letter in "ABCDEFGHIJ"]
    groups = [
        Group(model, {"data.classes": names}, [run for run in evaluations if run.folder.parent.name == model])
        for model in ("LeNet5", "CNN")
    ]
    report = collect(groups, evaluations, [LeNet5(), CNN()], LABELS, names, margin=10)
    assert [network["published_errors"] for network in report["networks"]] == [None, None]
    assert all("images in 2,000" in " ".join(pair["words"]) for pair in report["pairs"])
    (label,) = [image["label"] for image in report["hardest"] if image["image"] == 0]
    drawn = figures.hardest(report, torch.zeros(IMAGES, 28, 28)).findobj(Text)
    assert f"label {names[label]}" in [text.get_text() for text in drawn]
    assert any(text.get_text().startswith(f"{names[(label + 1) % 10]}  ") for text in drawn)
    for draw in (figures.confusion, figures.digits):
        axes = draw(report).axes[0]
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


def test_confidence(report: dict[str, Any], evaluations: dict[Run, Evaluation]) -> None:
    nll, brier, ece = [], [], []
    for run, evaluation in evaluations.items():
        if run.folder.parent.name != "CNN":
            continue
        probabilities = evaluation.probabilities_NK.astype(float)
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


def test_three_networks_get_three_verdicts_and_all_pictures(evaluations: dict[Run, Evaluation], tmp_path: Path) -> None:
    runs = {name: [run for run in evaluations if run.folder.parent.name == name] for name in ("LeNet5", "CNN")}
    third = [Run(Path("Third", str(seed))) for seed in range(2)]
    for seed, run in enumerate(third):
        run.__dict__["results"] = results("Third", seed, [0.98])
    answers_of = evaluations | {run: Evaluation(answers(90 + seed), np.zeros((8, 5))) for seed, run in enumerate(third)}
    groups = [Group(name, {}, of_name) for name, of_name in (runs | {"Third": third}).items()]
    report = collect(groups, answers_of, [LeNet5(), CNN(), CNN()], LABELS, CLASSES, margin=10)
    verdicts = {(pair["a"], pair["b"]): pair["verdict"] for pair in report["pairs"]}
    assert verdicts.keys() == {("LeNet5", "CNN"), ("LeNet5", "Third"), ("CNN", "Third")}
    assert verdicts["LeNet5", "Third"] == BETTER  # 44 ± 4 errors against 90 and 91
    assert {len(group["networks"]) for group in report["always_wrong"]} == {1, 2, 3}
    assert all(len(image["answers"]) == 3 for image in report["hardest"])

    latency = {"median": 1.0, "low": 1.0, "high": 1.0}
    for network in report["networks"]:
        network |= {"cost": {"multiply_adds": 1, "weight_bytes": 4}, "settings": {}}
    report |= {"notes": [], "left_out": {}, "robustness_images": 2000}
    report["made"] = {"number_of_runs": "", "machines": [], "versions": "", "command": ""}
    timing = {"latency_microseconds": latency, "images_per_second": latency, "threads": 2}
    report["timings"] = {network["name"]: timing for network in report["networks"]}
    page = write_report(report, torch.zeros(IMAGES, 28, 28, dtype=torch.uint8), tmp_path).read_text()
    for pair in report["pairs"]:
        assert f"<h3>{pair['a']} minus {pair['b']}</h3>" in page
        assert f"<h1>{pair['words'][0]}</h1>" in page
    assert page.count("<picture>") == len(list(tmp_path.glob("*.png"))) == 9


@pytest.mark.parametrize(
    ("errors", "headline", "other_images"),
    [
        (((100, 104, 96, 101, 99), (80, 84, 76, 81, 79)), "B is better than A, by 20.0 images in 10,000.", "agrees"),
        (((80, 81, 82, 80, 81), (80, 81, 82, 81, 80)), "A against B: no difference that matters.", "reaches beyond 10"),
        (
            ((80, 95, 110, 87, 91), (80, 81, 99, 70, 88)),
            "A against B: cannot tell which is better.",
            "can't tell either",
        ),
        (((100,), (80,)), "A against B: cannot tell which is better.", None),
        (((100, 90), (80,)), "A against B: cannot tell which is better.", None),
    ],
)
def test_verdict_in_words(errors: tuple[tuple[int, ...], ...], headline: str, other_images: str | None) -> None:
    labels = RANDOM.integers(10, size=10_000)
    groups, evaluations = [], {}
    for name, counts in zip("AB", errors, strict=True):
        runs = [Run(Path(name, str(seed))) for seed in range(len(counts))]
        for seed, (run, count) in enumerate(zip(runs, counts, strict=True)):
            run.__dict__["results"] = results(name, seed, [0.99])
            probabilities_NK = np.eye(10, dtype=np.float32)[labels]
            wrong = RANDOM.choice(10_000, count, replace=False)
            probabilities_NK[wrong] = np.eye(10, dtype=np.float32)[(labels[wrong] + 1) % 10]
            evaluations[run] = Evaluation(probabilities_NK, np.zeros((8, 5)))
        groups.append(Group(name, {}, runs))
    (pair,) = collect(groups, evaluations, [LeNet5(), CNN()], labels, CLASSES, margin=10)["pairs"]
    text = " ".join(pair["words"])
    assert pair["words"][0] == headline
    assert "A with 12 epochs, B with 12 epochs and dropout" in text
    assert (other_images or "") in text
    if other_images is None:
        assert "One run says nothing of the spread between seeds" in text
        assert ("McNemar" in text) == (pair["mcnemar"] is not None) == (len(errors[0]) == 1)
