"""The end of a search: table, verdict, figures and results.json."""

import json
from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from src.comparison.sentences import headline, mean_sd, over_seeds, table
from src.comparison.statistics import BETTER, Difference, intervals_over_seeds, summary, verdict
from src.system.files import write_whole
from src.system.machine import describe_machine, tensorboard_command
from src.tuning import results
from src.tuning.confirmation import Confirmation
from src.tuning.search import Search
from src.tuning.study import complete, finished, number_of


def report(search: Search, confirmation: Confirmation, margin: float) -> str:
    """Write the figures, results.json and best.yaml, and return the end of the search as text.

    Args:
        search: Its trials are finished.
        confirmation: The runs with fresh seeds, if there are any.
        margin: The largest difference, in held-out images, that doesn't matter.
    """
    search.tidy()  # a process may have been killed before it did
    results.draw(search.study, search.folder)
    errors = confirmation.errors()
    trials = complete(search.study)
    n_images = trials[0].user_attrs["images"]
    sentences = _verdicts(search, confirmation, errors, margin, n_images)
    content = {
        "trials": Counter(trial.state.name for trial in finished(search.study)),
        "best": [
            {"trial": number_of(trial), "errors": trial.user_attrs["errors"], "values": trial.params}
            for trial in trials[:10]
        ],
        "images": n_images,
        "fresh": {one.name: list(found) for one, found in zip(confirmation.candidates, errors, strict=False)},
        "verdict": sentences,
        "machine": describe_machine(torch.device("cpu")),
    }
    write_whole(search.folder / "results.json", f"{json.dumps(content, indent=1)}\n".encode())
    return "\n".join(
        [
            "",
            _best_ten(trials),
            "",
            *sentences,
            "",
            f"Train the best: {search.fit_command}",
            f"All trials:     {tensorboard_command(search.folder)} (tab HPARAMS)",
            f"Figures:        {', '.join(str(path) for path in sorted(search.folder.glob('*.png')))}",
        ]
    )


def _best_ten(trials: list[FrozenTrial]) -> str:
    """The best trials with their settings, as a table for the terminal."""
    best = trials[:10]
    columns = {"trial": [str(number_of(trial)) for trial in best], "errors": [f"{trial.value:.1f}" for trial in best]}
    for name in best[0].params:
        values = [trial.params[name] for trial in best]
        columns[name] = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
    return table(columns)


def _verdicts(
    search: Search, confirmation: Confirmation, errors: list[NDArray[np.float64]], margin: float, n_images: int
) -> list[str]:
    """Sentences on the winner against each other candidate. If the runner-up is better, best.yaml is replaced."""
    names = [candidate.name for candidate in confirmation.candidates]
    if len(names) < 2:
        return [f"There is no second recipe with a result to compare {names[0]} with."]
    if not errors:
        return [f"Nothing was run with fresh seeds, so it is unknown whether {names[0]} is better than {names[1]}."]
    sentences = [_describe(name, found) for name, found in zip(names, errors, strict=True)]
    intervals = intervals_over_seeds(errors) if all(len(found) > 1 for found in errors) else {}
    best = 0
    for other in range(1, len(names)):
        if not len(errors[best]) or not len(errors[other]):
            continue
        mean = float(errors[best].mean() - errors[other].mean())
        difference = Difference(mean, intervals.get((best, other)), over_seeds_and_images=None)
        pair = names[best], names[other], difference, margin
        reason = "Each needs two runs with different results."
        if difference.over_seeds is not None:
            reason = over_seeds(*pair, f"{n_images:,} held-out images")
        sentences.append(f"{headline(*pair, n_images)} {reason}")
        is_runner_up = other < len(confirmation.best)
        if is_runner_up and verdict(difference, margin) == BETTER and mean > 0:
            best = other  # the other recipes are compared with this one
            search.write_best(confirmation.best[best])
    return sentences


def _describe(name: str, errors_S: NDArray[np.float64]) -> str:
    if not len(errors_S):
        return f"With fresh seeds, no run of {name} has a result."
    return f"With {len(errors_S)} fresh seeds, {name} makes {mean_sd(summary(errors_S), 1)} errors."
