"""The verdict at the end of a search."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from src.tuning.report import _verdicts

LOW, HIGH, VARIED = [80, 82, 84, 81, 83], [120, 118, 123, 119, 121], [70, 95, 60, 110, 90]


@pytest.mark.parametrize(
    ("errors", "ends", "replaced"),
    [
        ([LOW, HIGH], ["trial 1 is better than trial 2: "], []),
        ([HIGH, LOW], ["trial 2 is better than trial 1: "], ["second"]),
        ([LOW, VARIED], ["trial 1 and trial 2 can't be told apart. "], []),
        ([LOW, LOW[::-1]], ["There is no difference that matters between trial 1 and trial 2. "], []),
        (
            [HIGH, LOW, VARIED],  # the other recipe is compared with the better of the two
            ["trial 2 is better than trial 1: ", "trial 2 and by hand can't be told apart. "],
            ["second"],
        ),
        ([LOW, VARIED, HIGH], ["trial 1 and trial 2 can't", "trial 1 is better than by hand: "], []),
        ([[80], [100]], ["trial 1 and trial 2 can't be told apart. Each needs two runs with different results"], []),
        ([LOW, []], [], []),
    ],
)
def test_the_end_says_which_is_better_or_that_it_cannot_tell(
    errors: list[list[float]], ends: list[str], replaced: list[str]
) -> None:
    written: list[str] = []
    names = ("trial 1", "trial 2", "by hand")[: len(errors)]
    candidates = [SimpleNamespace(name=name) for name in names]
    confirmation: Any = SimpleNamespace(candidates=candidates, best=["first", "second"])
    search: Any = SimpleNamespace(write_best=written.append)
    sentences = _verdicts(search, confirmation, [np.array(found) for found in errors], margin=10, n_images=1000)
    assert len(sentences) == len(errors) + len(ends)
    for sentence, start in zip(sentences[len(errors) :], ends, strict=True):
        assert sentence.startswith(start)
    assert written == replaced
