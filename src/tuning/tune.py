"""A search from beginning to end: checks, trials, fresh seeds for the best, report."""

from pathlib import Path

from src.system.errors import UserError
from src.system.files import locked
from src.system.signals import Interrupted
from src.training.side_by_side import Job, run_side_by_side
from src.tuning.confirmation import Candidate, Confirmation
from src.tuning.ranges import check_ranges
from src.tuning.report import report
from src.tuning.search import Search
from src.tuning.study import LOCK, finished, silence_optuna
from src.tuning.trial import check_settings

KEPT = "Finished trials are kept. Run the same command again to continue."


def tune(
    search: Search,
    search_file: Path,
    against: list[Candidate],
    n_fresh: int,
    margin: float,
    n_processes: int,
    worker_words: list[str] | None,
) -> None:
    """Search for settings, and print how the best trials did.

    Args:
        search: What to search.
        search_file: Its search file, for messages.
        against: Recipes that the best trial is compared with.
        n_fresh: The number of fresh seeds for the best two trials and the other recipes.
        margin: The largest difference, in held-out images, that doesn't matter.
        n_processes: The number of trials at a time.
        worker_words: The command line of each process that takes part, without ``python -m src``. None in such a
            process.

    Raises:
        UserError: A setting doesn't work, no trial has a result or a process has failed.
    """
    silence_optuna()
    for config in (search.base, *(candidate.config for candidate in against)):
        check_settings(search.parser, config)
    check_ranges(search_file, search.ranges, search.parser, search.base)
    search.open()
    if worker_words:
        done = f"{len(finished(search.study))} of {search.n_trials} trials are finished"
        print(f"{search.folder}: searching {', '.join(search.ranges)}; {done}.", flush=True)
    failed: list[str] = []
    try:
        if worker_words and n_processes > 1:
            failed = _search_side_by_side(search, n_processes, worker_words)
        search.run()
        confirmation = Confirmation(search, against, n_fresh)
        confirmation.run()
    except Interrupted as stopped:
        raise Interrupted(stopped.exit_code - 128, KEPT) from None
    if worker_words:
        with locked(search.folder / LOCK):  # other commands that work on this search end at the same time
            print(report(search, confirmation, margin))
    if failed:
        raise UserError("\n".join(failed))


def _search_side_by_side(search: Search, n_processes: int, words: list[str]) -> list[str]:
    """Run the search in several processes. Returns a sentence about each that failed."""
    logs = search.folder / "logs"
    jobs = [Job(f"process {n}", words, logs / f"process-{n}.log") for n in range(1, n_processes + 1)]
    failed = run_side_by_side(jobs, n_processes, KEPT)
    if len(failed) == n_processes:
        raise UserError("\n".join([*failed, KEPT]))
    return failed
