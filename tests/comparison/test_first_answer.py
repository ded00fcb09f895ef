"""The first answer, from made-up results.json."""

from pathlib import Path

from src.comparison.first_answer import first_answer
from src.comparison.groups import Group
from src.runs.folder import Run


def group(name: str, *errors: int, images: int = 10_000) -> Group:
    runs = [Run(Path(name, str(seed))) for seed in range(len(errors))]
    for run, number in zip(runs, errors, strict=True):
        run.__dict__["results"] = {"test": {"errors": number, "images": images}}
    return Group(name, {}, runs)


def test_networks_are_listed_by_their_errors_with_a_ranking_and_each_pair() -> None:
    groups = [group("Worst", 180, 185, 190), group("Best", 80, 84, 88), group("Good", 81, 83, 89)]
    lines = first_answer(groups, margin=20).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["network", "runs", "errors", "in", "10,000"],
        ["Best", "3", "84.0", "±", "4.0"],
        ["Good", "3", "84.3", "±", "4.2"],
        ["Worst", "3", "185.0", "±", "5.0"],
    ]
    assert lines[5:] == [
        "There is no difference that matters between Best and Good; both are better than Worst.",
        "There is no difference that matters between Best and Good.",
        "Best is better than Worst: 101.0 fewer errors in 10,000 images.",
        "Good is better than Worst: 100.7 fewer errors in 10,000 images.",
    ]


def test_single_runs_decide_nothing() -> None:
    lines = first_answer([group("A", 80), group("B", 200)], margin=10).splitlines()
    assert [line.split() for line in lines[1:3]] == [["A", "1", "80.0"], ["B", "1", "200.0"]]
    assert lines[4:] == ["A and B can't be told apart."]


def test_runs_that_were_tested_on_fewer_images_do_not_count() -> None:
    a, b = group("A", 80, 84), group("B", 90, 99)
    b.runs += group("B", 2, images=100).runs
    assert first_answer([a, b], margin=10) == first_answer([a, group("B", 90, 99)], margin=10)
    assert first_answer([a, group("B", 2, 3, images=100)], margin=10) == ""
