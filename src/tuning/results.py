"""What a search leaves on disk: best.yaml, TensorBoard's table of trials, and figures."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from optuna.visualization import matplotlib as figures
from tensorboard.plugins.hparams import summary_v2 as hparams
from torch.utils.tensorboard import SummaryWriter

from src.runs.recipe import Role, settings_with
from src.system.files import replace_when_whole
from src.tuning.ranges import Ranges
from src.tuning.study import complete, finished, folder_of, number_of

ERRORS = "held_out_errors"  # tag in TensorBoard


def overlay(recipe: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe that the configs of the search do not have. See `src.runs.recipe`."""
    same_network = recipe.get("model.class_path") == base.get("model.class_path")
    names = [*recipe, *(name for name in base if name not in recipe and same_network)]  # those are null
    changed = {name: recipe.get(name) for name in names if name not in base or recipe.get(name) != base[name]}
    return {name: value for name, value in changed.items() if name not in settings_with(Role.SEARCH)}


def keep_best_checkpoint(study: Study, folder: Path) -> None:
    """Remove the checkpoints of all finished trials but the best."""
    best = complete(study)[:1]
    for trial in finished(study):
        if trial not in best:
            remove_checkpoints(folder_of(trial, folder))


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of the runs of a trial."""
    for checkpoints in folder.rglob("checkpoints"):
        shutil.rmtree(checkpoints, ignore_errors=True)


def describe_search(folder: Path, ranges: Ranges) -> None:
    """Tell TensorBoard which settings and which metric the table of trials shows."""
    domains = {name: _domain(values) for name, values in ranges.items()}
    summary = hparams.hparams_config_pb(
        [hparams.HParam(name, domain) for name, domain in domains.items()],
        [hparams.Metric(ERRORS, display_name="held-out errors")],
    )
    with SummaryWriter(str(folder)) as writer:
        writer.file_writer.add_summary(summary)


def _domain(values: Any) -> Any:
    if isinstance(values, CategoricalDistribution):
        return hparams.Discrete([_shown(choice, values) for choice in values.choices])
    assert isinstance(values, FloatDistribution | IntDistribution)
    interval = hparams.RealInterval if isinstance(values, FloatDistribution) else hparams.IntInterval
    return interval(values.low, values.high)


def _shown(value: Any, values: BaseDistribution) -> Any:
    """A value for TensorBoard, which allows one type for each setting: choices of several types become text."""
    kinds = {type(choice) for choice in getattr(values, "choices", [value])}
    return value if len(kinds) == 1 and kinds < {bool, int, float} else str(value)


def show_trials(study: Study, folder: Path) -> None:
    """Write the entries of the finished trials in the table of TensorBoard, each once."""
    for trial in finished(study):
        own = folder_of(trial, folder)
        if list(own.glob("events.*")):
            continue
        values = {name: _shown(value, trial.distributions[name]) for name, value in trial.params.items()}
        with SummaryWriter(str(own)) as writer:
            writer.file_writer.add_summary(hparams.hparams_pb(values, trial_id=f"trial_{number_of(trial)}"))
            if trial.state == TrialState.COMPLETE and trial.value is not None:
                writer.add_scalar(ERRORS, trial.value, 0)


def draw(study: Study, folder: Path) -> None:
    """Draw the history of the search and the importance of each setting, as PNG files."""
    drawn: dict[str, Callable[..., Axes]] = {"history": figures.plot_optimization_history}
    if len({trial.value for trial in complete(study)}) > 1:
        drawn["importance"] = figures.plot_param_importances
    for name, plot in drawn.items():
        figure = plot(study, target_name="held-out errors").get_figure(root=True)
        assert figure is not None
        with replace_when_whole(folder / f"{name}.png") as file:
            figure.savefig(file, format="png", dpi=120, bbox_inches="tight")
        pyplot.close(figure)
