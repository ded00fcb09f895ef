"""The first answer of a comparison: what the results of the runs say, before any image is tested."""

from itertools import combinations

import numpy as np

from src.comparison import statistics
from src.comparison.groups import Group
from src.comparison.statistics import Difference, verdict
from src.comparison.words import duration, headline, mean_sd, ranking_of, table


def first_answer(groups: list[Group], margin: float) -> str:
    """Return a table of the errors and the verdict on each pair, from the results.json of all runs.

    The verdict is that of the report, unless the evaluation finds that a run must be left out.
    """
    groups = sorted(groups, key=lambda group: np.mean([run.results["test"]["errors"] for run in group.runs]))
    errors = [np.array([run.results["test"]["errors"] for run in group.runs]) for group in groups]
    n_images = max(run.results["test"]["images"] for group in groups for run in group.runs)
    columns = {
        "network": [group.name for group in groups],
        "runs": [str(len(group.runs)) for group in groups],
        f"errors in {n_images:,}": [mean_sd(e.mean(), e.std(ddof=1) if len(e) > 1 else None, 1) for e in errors],
        "training": [duration(np.median([run.results["train_seconds"] for run in group.runs])) for group in groups],
    }
    differences = {
        (a, b): Difference(float(errors[a].mean() - errors[b].mean()), interval, None)
        for (a, b), interval in statistics.intervals_over_seeds(errors).items()
    }
    verdicts = {pair: verdict(difference, margin) for pair, difference in differences.items()}
    names = [group.name for group in groups]
    lines = [ranking_of(names, verdicts)] if len(groups) > 2 else []
    for a, b in combinations(range(len(groups)), 2):
        lines.append(headline(names[a], names[b], differences[a, b], margin, n_images))
    return "\n".join([table(columns), "", *lines])
