"""The verdicts as sentences, and the text for the terminal."""

from collections.abc import Mapping

import numpy as np
import pytest

from src.comparison.result import Comparison
from src.comparison.sentences import sentences, summarise
from src.comparison.statistics import BETTER
from src.models import CNN, LeNet5
from tests.comparison.made_up import compared, contender

APART = "B and A can't be told apart."  # B has fewer errors


def right_but_for(labels_N: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    probabilities_NK = np.eye(10, dtype=np.float32)[labels_N]
    wrong = random.choice(len(labels_N), count, replace=False)
    probabilities_NK[wrong] = np.eye(10, dtype=np.float32)[(labels_N[wrong] + 1) % 10]
    return probabilities_NK


def comparison_of(errors: Mapping[str, tuple[int, ...]]) -> Comparison:
    random = np.random.default_rng(1)
    labels_N = random.integers(10, size=10_000)
    return compared(
        [
            contender(
                name, CNN() if name == "B" else LeNet5(), labels_N, [right_but_for(labels_N, n, random) for n in counts]
            )
            for name, counts in errors.items()
        ]
    )


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
def test_verdict_as_sentences(errors: tuple[tuple[int, ...], ...], headline: str, other_images: str | None) -> None:
    (pair,) = comparison_of({"A": errors[0], "B": errors[1]}).pairs
    first, second, *_, last = lines = sentences(pair)
    text = " ".join(lines)
    assert first == headline
    assert last.startswith("This compares whole recipes (")
    assert "A: 12 epochs" in last and "B: 12 epochs and dropout" in last
    assert (other_images or "") in text
    interval = pair.difference.over_seeds
    if pair.verdict == BETTER:
        assert interval is not None
        low, high = sorted((abs(interval.low), abs(interval.high)))
        assert f"is {low:.1f} to {high:.1f} fewer errors" in second
    if other_images is None:
        assert "One run says nothing about the spread between seeds" in text
        assert ("McNemar" in text) == (pair.mcnemar is not None) == (len(errors[0]) == 1)


def test_runs_with_different_epochs() -> None:
    labels_N = np.arange(100) % 10
    probabilities_NK = np.eye(10, dtype=np.float32)[labels_N]
    contenders = [contender(name, LeNet5(), labels_N, [probabilities_NK] * 2) for name in "AB"]
    contenders[0].runs[1].results["epochs"] = 5
    (pair,) = compared(contenders).pairs
    assert "(A: 5 to 12 epochs; B: 12 epochs)" in sentences(pair)[-1]


def test_three_networks_are_listed_by_their_errors_with_a_headline_for_each_pair() -> None:
    errors = {"Worst": (180, 185, 190), "B": (80, 84, 88), "Good": (81, 83, 89)}
    lines = summarise(comparison_of(errors)).splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["network", "B", "Good", "Worst"]
    assert lines[1].split() == ["B", "5", "12", "3", "84.0", "±", "4.0", "1", "min", "1", "s"]
    assert lines[5:] == [
        "B and Good can't be told apart.",
        "B is better than Worst: 101.0 fewer errors in 10,000 images.",
        "Good is better than Worst: 100.7 fewer errors in 10,000 images.",
    ]


def test_of_many_networks_only_the_pairs_of_the_best_are_listed() -> None:
    errors = {f"N{number}": (100 + 20 * number,) for number in reversed(range(30))}
    comparison = comparison_of(errors)
    assert [pair.a.name for pair in comparison.pairs] == ["N0"] * 29
    lines = summarise(comparison).splitlines()
    assert lines.count("N0 and N29 can't be told apart.") == 1
    assert not any("N1 and" in line for line in lines)
    assert any(line.startswith("One run says nothing about the spread") for line in lines)
    assert len(lines) < 70
