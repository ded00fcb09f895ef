"""The verdicts in words."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from src.comparison.statistics import BETTER, SAME, UNKNOWN
from src.comparison.words import ranking, sentences
from src.models import CNN, LeNet5
from tests.comparison.made_up import compared, network

APART = "A and B can't be told apart."


@pytest.mark.parametrize(
    ("errors", "headline", "other_images"),
    [
        (
            ((100, 104, 96, 101, 99), (80, 84, 76, 81, 79)),
            "B is better than A: 20.0 fewer errors in 10,000 images.",
            "agrees",
        ),
        (
            ((80, 84, 76, 81, 79), (100, 104, 96, 101, 99)),
            "A is better than B: 20.0 fewer errors in 10,000 images.",
            "agrees",
        ),
        (
            ((80, 81, 82, 80, 81), (80, 81, 82, 81, 80)),
            "There is no difference that matters between A and B.",
            "reaches beyond 10",
        ),
        (((80, 95, 110, 87, 91), (80, 81, 99, 70, 88)), APART, "shows no more"),
        (((100,), (80,)), APART, None),
        (((100, 90), (80,)), APART, None),
    ],
)
def test_verdict_in_words(errors: tuple[tuple[int, ...], ...], headline: str, other_images: str | None) -> None:
    random = np.random.default_rng(1)
    labels_N = random.integers(10, size=10_000)
    networks = []
    for name, trained, counts in zip("AB", (LeNet5(), CNN()), errors, strict=True):
        probabilities = []
        for count in counts:
            probabilities_NK = np.eye(10, dtype=np.float32)[labels_N]
            wrong = random.choice(10_000, count, replace=False)
            probabilities_NK[wrong] = np.eye(10, dtype=np.float32)[(labels_N[wrong] + 1) % 10]
            probabilities.append(probabilities_NK)
        networks.append(network(name, trained, labels_N, probabilities))
    (pair,) = compared(networks).pairs
    words = sentences(pair)
    text = " ".join(words)
    assert words[0] == headline
    assert words[-1] == (
        "This compares whole recipes (A: 12 epochs; B: 12 epochs and dropout), not the architectures alone."
    )
    assert (other_images or "") in text
    interval = pair.difference.over_seeds
    if pair.verdict == BETTER:
        assert interval is not None
        low, high = sorted((abs(interval.low), abs(interval.high)))
        assert f"is {low:.1f} to {high:.1f} fewer errors" in words[1]
    if other_images is None:
        assert "One run says nothing about the spread between seeds" in text
        assert ("McNemar" in text) == (pair.mcnemar is not None) == (len(errors[0]) == 1)


def test_runs_with_different_epochs() -> None:
    labels_N = np.arange(100) % 10
    probabilities_NK = np.eye(10, dtype=np.float32)[labels_N]
    networks = [network(name, LeNet5(), labels_N, [probabilities_NK] * 2) for name in "AB"]
    networks[0].runs[1].results["epochs"] = 5
    (pair,) = compared(networks).pairs
    assert "(A: 5 to 12 epochs; B: 12 epochs)" in sentences(pair)[-1]


def pairs_of(verdicts: dict[str, str]) -> list[Any]:
    """Pairs from "AB": verdict. A has the fewest errors, B more, and so on."""
    names = sorted(set("".join(verdicts)))
    networks = {name: SimpleNamespace(name=name, errors_S=np.array([place])) for place, name in enumerate(names)}
    return [
        SimpleNamespace(a=networks[names[0]], b=networks[names[1]], verdict=verdict)
        for names, verdict in verdicts.items()
    ]


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (
            {"AB": UNKNOWN, "AC": BETTER, "BC": BETTER},
            "A and B can't be told apart; both are better than C.",
        ),
        (
            {"BA": BETTER, "CA": BETTER, "BC": BETTER},  # the order in a pair says nothing
            "A is better than B and C; B is better than C.",
        ),
        (
            {"AB": BETTER, "AC": BETTER, "BC": UNKNOWN},
            "A is better than B and C; B and C can't be told apart.",
        ),
        (
            {"AB": SAME, "AC": BETTER, "BC": BETTER},
            "There is no difference that matters between A and B; both are better than C.",
        ),
        (
            {"AB": BETTER, "AC": BETTER, "BC": SAME},
            "A is better than B and C; there is no difference that matters between B and C.",
        ),
        ({"AB": UNKNOWN, "AC": UNKNOWN, "BC": UNKNOWN}, "A, B and C can't be told apart."),
        ({"AB": SAME, "AC": SAME, "BC": SAME}, "There is no difference that matters between A, B and C."),
        # Verdicts need not be transitive.
        (
            {"AB": UNKNOWN, "BC": UNKNOWN, "AC": BETTER},
            "A is better than C; A and B can't be told apart; B and C can't be told apart.",
        ),
        (
            {"AB": BETTER, "BC": BETTER, "AC": UNKNOWN},
            "A is better than B; B is better than C; A and C can't be told apart.",
        ),
        (
            {"AB": SAME, "AC": UNKNOWN, "BC": UNKNOWN},
            "There is no difference that matters between A and B; A and C can't be told apart; "
            "B and C can't be told apart.",
        ),
        (
            {"AB": SAME, "BC": SAME, "AC": BETTER},
            "A is better than C; there is no difference that matters between A and B; "
            "there is no difference that matters between B and C.",
        ),
        (
            {"AB": UNKNOWN, "CD": UNKNOWN} | dict.fromkeys(("AC", "AD", "BC", "BD"), BETTER),
            "A and B can't be told apart; both are better than C and D; C and D can't be told apart.",
        ),
        (
            dict.fromkeys(("AB", "AC", "BC"), UNKNOWN) | dict.fromkeys(("AD", "BD", "CD"), BETTER),
            "A, B and C can't be told apart; all are better than D.",
        ),
        (
            {"AB": SAME, "AC": UNKNOWN, "BC": UNKNOWN} | dict.fromkeys(("AD", "BD", "CD"), BETTER),
            "A, B and C are all better than D; there is no difference that matters between A and B; "
            "A and C can't be told apart; B and C can't be told apart.",
        ),
    ],
)
def test_ranking_of_three_networks_or_more(verdicts: dict[str, str], expected: str) -> None:
    assert ranking(pairs_of(verdicts)) == expected
