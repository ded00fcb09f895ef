"""The command `tune`: a search from beginning to end.

Optuna, scipy and matplotlib are imported inside functions: every command reads the options here.
"""

import math
import shlex
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from src.runs.folder import LOCK, check_folder_name, short_name
from src.runs.recipe import Role, place, recipe_of, settings_with
from src.system.errors import UserError
from src.system.files import locked
from src.system.signals import Interrupted
from src.training.side_by_side import Job, run_side_by_side

if TYPE_CHECKING:
    from src.tuning.ranges import Ranges
    from src.tuning.search import Search

KEPT = "Finished trials are kept. Run the same command again to continue."


def tune(
    fit_parser: LightningArgumentParser,
    args: list[str],
    settings: Namespace,
    /,
    search: Path | None = None,
    trials: PositiveInt = 50,
    minutes: PositiveFloat | None = None,
    seeds: PositiveInt = 1,
    prune: bool = True,
    fresh: NonNegativeInt = 5,
    against: list[Path] | None = None,
    margin: NonNegativeFloat = 10.0,
    jobs: PositiveInt = 1,
    name: str | None = None,
    output: Path = Path("tuning"),
    storage: str | None = None,
    worker: bool = False,
) -> None:
    """Search for settings that make few errors in held-out training images.

    Args:
        search: YAML file of the settings to search and their ranges, such as model.lr: {log: [1e-4, 1e-1]}
        trials: Number of finished trials in all, over all processes and restarts.
        minutes: Start no trial later than this. Trials that are running and the runs with fresh seeds still end.
        seeds: Number of runs of each trial, with different seeds. Its result is their mean.
        prune: End a trial that has more errors after an epoch than the median of the others.
        fresh: Number of runs of each of the best two trials with fresh seeds, at the end.
        against: Configs of other recipes to compare the best trial with, in runs with the same fresh seeds.
        margin: The largest difference that does not matter, in held-out images.
        jobs: Number of trainings at a time, each in a process of its own.
        name: Name of the search. Default: that of the network.
        output: Folder of all searches.
        storage: A journal file or the URL of a database. Default: an SQLite file in the folder of the search.
    """
    from src.tuning.search import Search
    from src.tuning.study import RANGE, open_study

    ends_at = time.monotonic() + 60 * (minutes or math.inf)
    check_folder_name(name)
    ranges, others = _check(fit_parser, settings, search, against or [])
    facts = recipe_of(settings, fit_parser) | {"--seeds": seeds}
    facts |= {RANGE + setting: written for setting, written in ranges.items()}
    folder = output / (name or short_name(settings.model.class_path).lower())
    study = open_study(folder, storage, facts)
    opened = Search(fit_parser, settings, ranges, trials, seeds, prune, folder, study, ends_at)
    _run(opened, others, fresh, margin, jobs, None if worker else [*args, "--jobs=1", "--worker"])


def _check(
    parser: LightningArgumentParser, settings: Namespace, search: Path | None, against: list[Path]
) -> "tuple[Ranges, dict[str, Namespace]]":
    """Read the search file and the other recipes. Refuses settings with which the search would fail."""
    from src.tuning.ranges import check_ranges, read_ranges
    from src.tuning.trial import check_settings

    if search is None:
        raise UserError("Name the settings to search: --search configs/search.yaml")
    if settings.model is None:
        raise UserError("Name a network: --config configs/lenet5.yaml, or --model LeNet5")
    ranges = read_ranges(search)
    check_settings(parser, settings)
    check_ranges(search, ranges, parser, settings)
    others = {str(path): parser.parse_args([f"--config={path}"]) for path in against}
    for name, other in others.items():
        if other.model is None:
            raise UserError(f"{name} names no network.")
        if other.data.class_path != settings.data.class_path:
            other.data = settings.data.clone()
        for shared in map(place, settings_with(Role.SEARCH)):
            if shared in settings:
                other[shared] = settings[shared]
        check_settings(parser, other)
    return ranges, others


def _run(
    search: "Search",
    others: dict[str, Namespace],
    n_fresh: int,
    margin: float,
    n_processes: int,
    worker_args: list[str] | None,
) -> None:
    """Train the trials, then the best two of them and the `others` with fresh seeds, and print the report.

    `worker_args` is the command line of each process of several. It is None in such a process, which reports nothing.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    from src.tuning.report import name_of, report
    from src.tuning.study import finished, ranked

    try:
        if worker_args:
            done = f"{len(finished(search.study))} of {search.n_trials} trials are finished"
            print(f"{search.folder}: searching {', '.join(search.ranges)}; {done}.", flush=True)
            if n_processes > 1 and not search.is_finished:
                _run_workers(search.folder, n_processes, [*worker_args, "--fresh=0"])
        search.train_trials()
        recipes = {name_of(trial): search.settings_of(trial) for trial in ranked(search.study)[:2]} | others
        errors: dict[str, list[int]] = {}
        if n_fresh and len(recipes) > 1:
            if worker_args and n_processes > 1:
                enough = f"--trials={len(finished(search.study))}"  # the time may have ended the search
                _run_workers(search.folder, n_processes, [*worker_args, enough])
            errors = search.train_fresh(recipes, n_fresh)
        if worker_args:
            with locked(search.folder / LOCK):  # other commands that work on this search end at the same time
                print(report(search, errors, margin))
    except Interrupted as stopped:
        raise Interrupted(stopped.exit_code - 128, KEPT) from None
    except (SQLAlchemyError, StorageInternalError) as error:
        raise UserError(f"The storage failed: {' '.join(str(error).split())[:300]}. {KEPT}") from error


def _run_workers(folder: Path, n_processes: int, args: list[str]) -> None:
    """Run the same command in several processes, each with a log file."""
    logs = Path(mkdtemp(prefix="logs_", dir=folder))
    jobs = [Job(f"process {number}", args, logs / f"process_{number}.log") for number in range(1, n_processes + 1)]
    print(f"Follow the processes: tail -F {shlex.join(str(job.log) for job in jobs)}", flush=True)
    if failed := run_side_by_side(jobs, n_processes, KEPT):
        raise UserError("\n".join([*failed, KEPT]))
