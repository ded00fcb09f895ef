"""The verdict at the end of a search."""

import pytest

from src.tuning.report import compare_recipes

LOW, HIGH, VARIED = [80, 82, 84, 81, 83], [120, 118, 123, 119, 121], [70, 95, 60, 110, 90]


@pytest.mark.parametrize(
    ("errors", "ends", "winner"),
    [
        ([LOW, HIGH], ["Trial 1 is better than Trial 2: "], 1),
        ([HIGH, LOW], ["Trial 2 is better than Trial 1: "], 2),
        ([LOW, VARIED], ["Trial 1 and Trial 2 can't be told apart. "], 1),
        ([LOW, LOW[::-1]], ["There is no difference that matters between Trial 1 and Trial 2. "], 1),
        (
            [HIGH, LOW, VARIED],  # the other recipe is compared with the better of the two
            ["Trial 2 is better than Trial 1: ", "Trial 2 and by hand can't be told apart. "],
            2,
        ),
        ([HIGH, HIGH, LOW], ["There is no difference", "by hand is better than Trial 1: "], 1),
        ([[80], [100]], ["Trial 1 and Trial 2 can't be told apart. Each needs two runs with different results"], 1),
        ([LOW, []], [], 1),
        ([[], HIGH, LOW], [], 1),
    ],
)
def test_the_end_says_which_is_better_or_that_it_cannot_tell(
    errors: list[list[int]], ends: list[str], winner: int
) -> None:
    by_name = dict(zip(("Trial 1", "Trial 2", "by hand"), errors, strict=False))
    best, sentences = compare_recipes(by_name, ["Trial 1", "Trial 2"], margin=10, n_images=1000)
    assert best == f"Trial {winner}"
    assert len(sentences) == len(errors) + len(ends)
    for sentence, start in zip(sentences[len(errors) :], ends, strict=True):
        assert sentence.startswith(start)
