"""What a comparison finds, as plain data."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from src.comparison.groups import Group, LeftOut
from src.comparison.statistics import Difference, Wrong, differences, mcnemar, verdict
from src.models import Classifier


@dataclass(eq=False)
class Network(Group):
    """A network, all its runs, and their answers."""

    trained: Classifier  # of the first run
    labels_N: NDArray[np.int64]
    probabilities_SNK: NDArray[np.float32]
    robustness_SCS: NDArray[np.float64]  # share of errors of each run under each corruption in each strength

    @cached_property
    def answers_SN(self) -> NDArray[np.int64]:
        return self.probabilities_SNK.argmax(axis=2)

    @cached_property
    def wrong_SN(self) -> Wrong:
        return self.answers_SN != self.labels_N

    @property
    def errors_S(self) -> NDArray[np.int64]:
        return self.wrong_SN.sum(axis=1)

    @property
    def results(self) -> list[dict[str, Any]]:
        return [run.results for run in self.runs]

    @property
    def epochs(self) -> int | str:
        """The epochs of each run, or a range if some runs stopped early."""
        first, *others = sorted({result["epochs"] for result in self.results})
        return f"{first} to {others[-1]}" if others else first

    @property
    def has_dropout(self) -> bool:
        return any(isinstance(module, nn.Dropout) for module in self.trained.modules())


@dataclass
class Pair:
    """Two networks and their difference. The margin is the largest difference, in images, that doesn't matter."""

    a: Network
    b: Network
    difference: Difference  # errors of `a` minus errors of `b`
    margin: float

    @property
    def verdict(self) -> str:
        return verdict(self.difference, self.margin)

    @property
    def mcnemar(self) -> float | None:
        """The p value of two single runs; None where a network has more."""
        single = len(self.a.runs) == len(self.b.runs) == 1
        return mcnemar(self.a.wrong_SN[0], self.b.wrong_SN[0]) if single else None


@dataclass
class Comparison:
    """Networks, compared in pairs."""

    networks: list[Network]
    margin: float
    images_NHW: Tensor  # the test images, uint8
    classes: list[str]
    notes: list[str]
    left_out: LeftOut
    number_of_runs: str  # how it was fixed, in sentences
    folder: Path  # of the report
    command: list[str]  # that makes the comparison again

    @cached_property
    def pairs(self) -> list[Pair]:
        found = differences([network.wrong_SN for network in self.networks])
        return [Pair(self.networks[a], self.networks[b], one, self.margin) for (a, b), one in found.items()]

    @property
    def labels_N(self) -> NDArray[np.int64]:
        return self.networks[0].labels_N
