"""Which images are wrong: confusions, accuracy of each class, and the hardest images."""

from collections import Counter

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_confusion_matrix

from src import plots
from src.comparison.result import Comparison, Contender
from src.comparison.statistics import summary
from src.report import style
from src.report.sections import Numbers

HARDEST = 24  # images shown


def of_contender(contender: Contender) -> Numbers:
    """Return the mean confusion matrix of the runs, and the accuracy of each class."""
    labels_N, K = torch.from_numpy(contender.labels_N), contender.probabilities_SNK.shape[2]
    answers = map(torch.from_numpy, contender.answers_SN)
    confusion_SKK = np.stack([multiclass_confusion_matrix(answers_N, labels_N, K) for answers_N in answers])
    with np.errstate(invalid="ignore"):  # NaN for a class without test images
        accuracy_SK = confusion_SKK.diagonal(axis1=1, axis2=2) / confusion_SKK.sum(axis=2)
    return {
        "confusion": confusion_SKK.mean(axis=0).tolist(),
        "digits": [summary(accuracy_S) for accuracy_S in accuracy_SK.T],
    }


def always_wrong(contenders: list[Contender]) -> list[Numbers]:
    """Return the sets of networks of which every run is wrong about some image, with these images, most first."""
    always_GN = np.stack([contender.wrong_SN.all(axis=0) for contender in contenders])
    images: dict[tuple[int, ...], list[int]] = {}
    for image in np.flatnonzero(always_GN.any(axis=0)).tolist():
        images.setdefault(tuple(np.flatnonzero(always_GN[:, image]).tolist()), []).append(image)
    return [
        {"networks": [contenders[number].name for number in numbers], "images": images[numbers]}
        for numbers in sorted(images, key=lambda numbers: (-len(images[numbers]), numbers))
    ]


def hardest_images(comparison: Comparison) -> list[Numbers]:
    """Return the images that most runs get wrong, with the answers. Each network counts the same."""
    contenders, labels_N = comparison.contenders, comparison.labels_N
    wrong_N = np.mean([contender.wrong_SN.mean(axis=0) for contender in contenders], axis=0)
    of_label = np.arange(len(labels_N)), labels_N
    confidences = [contender.probabilities_SNK.mean(axis=0)[of_label] for contender in contenders]
    confidence_N = np.mean(confidences, axis=0)
    return [
        {
            "image": int(image),
            "label": int(labels_N[image]),
            "wrong": float(wrong_N[image]),
            "answers": [_answer(contender.probabilities_SNK[:, image]) for contender in contenders],
        }
        for image in np.lexsort((confidence_N, -wrong_N))[:HARDEST]
        if wrong_N[image] > 0
    ]


def _answer(probabilities_SK: NDArray[np.float32]) -> Numbers:
    """Return the most frequent answer of the runs, and the mean confidence of the runs that give it."""
    answers_S = probabilities_SK.argmax(axis=1)
    digit = Counter(answers_S.tolist()).most_common(1)[0][0]
    return {"digit": digit, "confidence": float(probabilities_SK[answers_S == digit, digit].mean())}


def draw_confusion(numbers: Numbers, comparison: Comparison) -> Figure:
    """Draw how many images of each class a run takes for another class, on average."""
    networks, classes = numbers["networks"][: style.SHOWN], numbers["classes"]
    rows = -(-len(networks) // 2)
    figure = Figure(figsize=(style.WIDTH, 0.62 * style.WIDTH * rows))
    errors = [np.array(network["confusion"]) * (1 - np.eye(len(classes))) for network in networks]
    highest = max(errors_KK.max() for errors_KK in errors)
    for place, (network, errors_KK) in enumerate(zip(networks, errors, strict=True), start=1):
        axes = figure.add_subplot(rows, 2, place, title=network["name"])
        plots.draw_confusion(axes, errors_KK, classes, highest, fontsize=5.5)
    figure.suptitle("Errors of one run, on average", fontsize=11)
    return figure


def draw_classes(numbers: Numbers, comparison: Comparison) -> Figure:
    """Draw the accuracy of each class with its interval over seeds."""
    networks, classes = numbers["networks"][: style.SHOWN], numbers["classes"]
    figure = Figure(figsize=(style.WIDTH, 3.4))
    axes = figure.add_subplot(title="Accuracy of each class", xlabel="Label", ylabel="Accuracy in %")
    for number, network in enumerate(networks):
        x = np.arange(len(classes)) + 0.5 * (number - (len(networks) - 1) / 2) / len(networks)
        mean = 100 * np.array([digit["mean"] for digit in network["digits"]])
        half = [0 if digit["high"] is None else 100 * (digit["high"] - digit["mean"]) for digit in network["digits"]]
        marks = style.of_network(number) | {"linestyle": "none", "capsize": 2, "markersize": 5}
        axes.errorbar(x, mean, half, label=network["name"], **marks)
    plots.label_classes(axes, classes)
    axes.set_ylim(top=100.1)
    axes.legend()
    return figure


def draw_hardest(numbers: Numbers, comparison: Comparison) -> Figure:
    """Draw the images that most runs get wrong, with the label and the answer of each network."""
    classes, images = numbers["classes"], comparison.images_NHW
    assert images is not None  # `draw_figures` leaves it out
    tiles = [
        plots.Tile(
            images[image["image"]],
            f"label {classes[image['label']]}",
            [(classes[answer["digit"]], answer["confidence"]) for answer in image["answers"][: style.SHOWN]],
        )
        for image in numbers["hardest"]
    ]
    return plots.digit_sheet(tiles, [network["name"] for network in numbers["networks"][: style.SHOWN]])
