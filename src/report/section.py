"""What a section of the report consists of, and the summaries that several sections use."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from src.comparison.result import Comparison, Contender, Pair

Numbers = dict[str, Any]  # a part of report.json
Figures = dict[str, Callable[[Numbers, Comparison], Figure]]  # by name


class Section:
    """One section of the report, shown by ``<name>.html.jinja`` beside its module. Override what it contributes."""

    def of_contender(self, contender: Contender) -> Numbers:
        return {}

    def of_pair(self, pair: Pair, comparison: Comparison) -> Numbers:
        return {}

    def of_comparison(self, comparison: Comparison) -> Numbers:
        return {}

    def figures(self, numbers: Numbers) -> Figures:
        """Return by name what draws a figure from the numbers of the whole report."""
        return {}


def band(values_SX: ArrayLike) -> dict[str, list[float]]:
    """Return mean, lowest and highest value over the runs, each a list over X; NaN where a run has no value."""
    values_SX = np.asarray(values_SX, dtype=float)  # None becomes NaN
    mean, low, high = values_SX.mean(axis=0), values_SX.min(axis=0), values_SX.max(axis=0)
    return {"mean": mean.tolist(), "low": low.tolist(), "high": high.tolist()}
