from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from src.comparison.result import Comparison
from src.models import CNN, LeNet5
from src.report.page import collect_numbers
from src.report.sections import cost
from tests.comparison.made_up import TIMING, answers, compared, contender

IMAGES = 2000
LABELS = np.random.default_rng(0).integers(10, size=IMAGES)


def runs_with(errors: Sequence[int], seed: int) -> list[NDArray[np.float32]]:
    """The answers of runs with so many errors each."""
    random = np.random.default_rng(seed)
    return [answers(LABELS, n_errors, random) for n_errors in errors]


@pytest.fixture(scope="package")
def comparison() -> Comparison:
    """CNN with two runs and LeNet5 with three, which has more errors."""
    settings = {"data.val_size": 0}
    accuracy = (0.5, 0.99, 0.98, 0.985, 0.97, 0.975, 0.98)
    return compared(
        [
            contender("LeNet5", LeNet5(), LABELS, runs_with((40, 48, 44), seed=1), settings, accuracy),
            contender("CNN", CNN(), LABELS, runs_with((30, 36), seed=2), settings, accuracy),
        ]
    )


@pytest.fixture(scope="package", autouse=True)
def timings_in_no_time() -> Any:
    """Times of one microsecond for all networks: measuring them takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "time_inference", lambda networks, shape: dict.fromkeys(networks, TIMING))
        yield


@pytest.fixture(scope="package")
def numbers(comparison: Comparison) -> dict[str, Any]:
    return collect_numbers(comparison)
