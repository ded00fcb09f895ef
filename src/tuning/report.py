"""The end of a search: best.yaml, figures, results.json, table and verdict."""

import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from optuna import Study
from optuna.trial import FrozenTrial
from optuna.visualization import matplotlib as figures

from src.comparison.sentences import headline, mean_sd, over_seeds, table
from src.comparison.statistics import BETTER, Difference, intervals_over_seeds, summary, verdict
from src.runs.recipe import Role, place, settings_with
from src.system.files import replace_when_whole, write_json, write_whole
from src.system.machine import describe_machine, tensorboard_command
from src.tuning.search import Search
from src.tuning.study import finished, ranked


def report(search: Search, errors: dict[str, list[int]], margin: float) -> str:
    """Write best.yaml, the figures and results.json, and return the end of the search as text.

    Args:
        search: Its trials are finished.
        errors: With fresh seeds, of the best two trials, then of other recipes. Empty without such runs.
        margin: The largest difference, in held-out images, that doesn't matter.
    """
    trials = ranked(search.study)[:10]
    names = [name_of(trial) for trial in trials]
    n_images = trials[0].user_attrs["images"]
    sentences = [f"Nothing was run with fresh seeds, so it is unknown whether {names[0]} is better than other recipes."]
    winner = names[0]
    if errors:
        winner, sentences = compare_recipes(errors, names[:2], margin, n_images)
    fit_command = write_best(search, trials[names.index(winner)])
    paths = _draw(search.study, search.folder)
    content = {
        "trials": Counter(trial.state.name for trial in finished(search.study)),
        "best": [{"trial": trial.number, "errors": trial.value, "values": trial.params} for trial in trials],
        "images": n_images,
        "fresh": errors,
        "verdict": sentences,
        "machine": describe_machine(torch.device("cpu")),
    }
    write_json(search.folder / "results.json", content)
    return f"""
{_table(trials)}

{chr(10).join(sentences)}

Train the best: {fit_command}
All trials:     {tensorboard_command(search.folder)} (tab HPARAMS)
Figures:        {", ".join(map(str, paths))}"""


def name_of(trial: FrozenTrial) -> str:
    """The name of a trial in sentences."""
    return f"Trial {trial.number}"


def _table(trials: list[FrozenTrial]) -> str:
    columns = {"trial": [str(t.number) for t in trials], "errors": [f"{t.value:.1f}" for t in trials]}
    for name in trials[0].params:
        values: list[Any] = [trial.params[name] for trial in trials]
        columns[name] = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in values]
    return table(columns)


def compare_recipes(
    errors: dict[str, list[int]], trials: list[str], margin: float, n_images: int
) -> tuple[str, list[str]]:
    """Compare the winner of a search with the runner-up, then the better one of them with other recipes.

    For `errors` and `margin`, see `report`. `trials` are the names of the best two trials.

    Returns:
        The name of the better trial (of the first one if that's unknown), and sentences.
    """
    sentences = [
        f"With {len(values)} fresh seeds, {name} makes {mean_sd(summary(values), 1)} errors."
        if values
        else f"No run of {name} with a fresh seed has a result."
        for name, values in errors.items()
    ]
    best = trials[0]
    known = [name for name, values in errors.items() if values]
    intervals = intervals_over_seeds([np.array(errors[name]) for name in known]) if len(known) > 1 else {}
    for other in known[1:] if best in known else []:
        mean = float(np.mean(errors[best]) - np.mean(errors[other]))
        interval = intervals[known.index(best), known.index(other)]
        difference = Difference(mean, interval, over_seeds_and_images=None)
        details = "Each needs two runs with different results."
        if interval is not None:
            details = over_seeds(best, other, difference, margin, f"{n_images:,} held-out images")
        sentences.append(f"{headline(best, other, difference, margin, n_images)} {details}")
        if other in trials and verdict(difference, margin) == BETTER and mean > 0:
            best = other
    return best, sentences


def write_best(search: Search, trial: FrozenTrial) -> str:
    """Write the settings of a trial to best.yaml, for a training on all images. Returns the command line for it."""
    settings = search.settings_of(trial)
    configs = [f"--config={path}" for path in settings.config or []]
    base = search.parser.parse_args([f"--data={settings.data.class_path}", *configs])
    for name in settings_with(Role.SEARCH):
        if name not in ("data.classes", "data.data_dir", "trainer.accelerator") and place(name) in settings:
            settings[place(name)] = base[place(name)]  # without held-out images and limits of batches
    path = search.folder / "best.yaml"
    command = shlex.join(["python", "-m", "src", "fit", "--config", str(path)])
    comment = f"# Trial {trial.number} of {search.folder}: {trial.value:g} errors in the held-out images.\n"
    text = search.parser.dump(settings, skip_unset=False)
    write_whole(path, f"{comment}# Use: {command}\n{text}".encode())
    return command


def _draw(study: Study, folder: Path) -> list[Path]:
    """Draw the history of the search and the importance of each setting, as PNG files."""
    plots: dict[str, Callable[..., Axes]] = {"history": figures.plot_optimization_history}
    if len({trial.value for trial in ranked(study)}) > 1:
        plots["importance"] = figures.plot_param_importances
    for name, plot in plots.items():
        figure = plot(study, target_name="held-out errors").get_figure(root=True)
        assert figure is not None
        with replace_when_whole(folder / f"{name}.png") as file:
            figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
        pyplot.close(figure)
    return [folder / f"{name}.png" for name in plots]
