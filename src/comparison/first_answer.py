"""The first answer of a comparison: what the results of the runs say, before any image is tested."""

import numpy as np

from src.comparison import statistics
from src.comparison.groups import Group
from src.comparison.statistics import Difference, verdict
from src.comparison.words import headline, mean_sd, ranking_of, table


def first_answer(groups: list[Group], margin: float) -> str:
    """Return a table of the errors and the verdict on each pair, from the results.json of all runs.

    The report may differ: its evaluation can leave a run out, or round a few answers differently. Runs that were tested
    on fewer images don't count here. Empty if fewer than two networks remain.
    """
    n_images = max(run.results["test"]["images"] for group in groups for run in group.runs)
    errors_of = {
        group.name: np.array([run.results["test"]["errors"] for run in runs])
        for group in groups
        if (runs := [run for run in group.runs if run.results["test"]["images"] == n_images])
    }
    names = sorted(errors_of, key=lambda name: errors_of[name].mean())
    if len(names) < 2:
        return ""
    errors = [errors_of[name] for name in names]
    columns = {
        "network": names,
        "runs": [str(len(errors_S)) for errors_S in errors],
        f"errors in {n_images:,}": [mean_sd(statistics.summary(errors_S), 1) for errors_S in errors],
    }
    differences = {
        (a, b): Difference(float(errors[a].mean() - errors[b].mean()), interval, None)
        for (a, b), interval in statistics.intervals_over_seeds(errors).items()
    }
    verdicts = {pair: verdict(difference, margin) for pair, difference in differences.items()}
    lines = [ranking_of(names, verdicts)] if len(names) > 2 else []
    lines += [headline(names[a], names[b], found, margin, n_images) for (a, b), found in differences.items()]
    return "\n".join([table(columns), "", *lines])
