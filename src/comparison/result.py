"""What a comparison finds, as plain data."""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule
from numpy.typing import NDArray
from torch import Tensor, nn

from src.comparison.groups import Group, LeftOut
from src.comparison.statistics import Difference, Wrong, differences, mcnemar, verdict

FEW = 5  # networks of which every pair is shown


@dataclass(eq=False)
class Contender(Group):
    """The runs of one network and one recipe, with their answers to the test images."""

    trained: LightningModule  # of the first run
    labels_N: NDArray[np.int64]
    probabilities_SNK: NDArray[np.float32]
    robustness_SCL: NDArray[np.float64] | None = None  # error rate of each run under each corruption, at each level

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
    """Two contenders and their difference. The margin is the largest difference, in images, that doesn't matter."""

    a: Contender  # has fewer errors, or as many
    b: Contender
    difference: Difference  # errors of `a` minus errors of `b`
    margin: float

    @property
    def verdict(self) -> str:
        return verdict(self.difference, self.margin)

    @property
    def mcnemar(self) -> float | None:
        """The p value of two single runs; None where a contender has more."""
        single = len(self.a.runs) == len(self.b.runs) == 1
        return float(mcnemar(self.a.wrong_SN, self.b.wrong_SN)[0, 0]) if single else None


@dataclass
class Comparison:
    """Contenders, in the order of their mean errors, compared in pairs."""

    contenders: list[Contender]
    margin: float
    images_NHW: Tensor | None  # the test images, uint8, of MNIST's data module
    shape: tuple[int, ...]  # of one image, as the networks get it
    classes: list[str]
    notes: list[str]
    left_out: LeftOut
    number_of_runs: str  # how it was fixed, in sentences
    folder: Path  # of the report
    command: list[str]  # that makes the comparison again

    def __post_init__(self) -> None:
        self.contenders = sorted(self.contenders, key=lambda contender: contender.errors_S.mean())

    @property
    def shows_all_pairs(self) -> bool:
        return len(self.contenders) <= FEW

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every pair of a few contenders; of many, the pairs of the one with the fewest errors."""
        numbers = range(len(self.contenders))
        pairs = list(combinations(numbers, 2)) if self.shows_all_pairs else [(0, other) for other in numbers[1:]]
        of_pairs = differences([contender.wrong_SN for contender in self.contenders], pairs)
        return [
            Pair(self.contenders[a], self.contenders[b], difference, self.margin)
            for (a, b), difference in zip(pairs, of_pairs, strict=True)
        ]

    @property
    def labels_N(self) -> NDArray[np.int64]:
        return self.contenders[0].labels_N
