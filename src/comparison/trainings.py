"""The runs that a comparison still needs: trained one after the other, each in its own process."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from src.comparison.groups import Group, find_group
from src.system.errors import UserError
from src.system.files import replace_when_whole
from src.training.stopping import SIGNALS, Interrupted, handle_signals

KEPT = "Finished runs are kept. Run the same command again to continue."


@dataclass(frozen=True)
class Trainings:
    """One config, trained with the seeds 0, 1, …"""

    config: str
    name: str  # of the network
    settings: dict[str, Any]  # see `src.runs.recipe`
    folder: Path  # of its runs
    n_seeds: int

    def finished(self) -> Group:
        return find_group(self.name, self.folder, self.settings, range(self.n_seeds))


def train_missing(planned: list[Trainings]) -> list[Group]:
    """Train every config with every seed. Finished runs are skipped; an interrupted run is continued.

    The networks take turns, so that other load on the machine affects all of them.

    Returns:
        The runs of each config.
    """
    wanted = [(seed, trainings) for seed in range(planned[0].n_seeds) for trainings in planned] if planned else []
    for number, (seed, trainings) in enumerate(wanted, start=1):
        if seed in [run.results["seed"] for run in trainings.finished().runs]:
            continue
        print(f"\nRun {number} of {len(wanted)}: {trainings.name}, seed {seed}{_time_left(wanted)}", flush=True)
        command = [sys.executable, "-m", "src", "fit", "--config", trainings.config]
        code = _run([*command, "--seed_everything", str(seed), "--resume", "auto"])
        if (number := code - 128 if code > 0 else -code) in SIGNALS:  # below 0: while Python started or shut down
            raise Interrupted(number, KEPT)
        if code != 0:
            failed = f"The training of {trainings.name} with seed {seed} failed with exit code {code}; see above."
            raise UserError(f"{failed} {KEPT}")
    return [trainings.finished() for trainings in planned]


def fix_number(planned: list[Trainings], path: Path) -> str:
    """Record in a file when the number of seeds was fixed, and return the sentences about it for the report.

    A number that is changed after the results are known can favour one of them. So every change is reported.
    """
    if not planned:
        return "This program did not fix the number of runs in advance."
    finished = sum(len(trainings.finished().runs) for trainings in planned)
    try:
        fixed = json.loads(path.read_text()) if path.exists() else []
    except ValueError:
        raise UserError(f"{path} is damaged. Delete it; the record of earlier numbers of runs is lost.") from None
    if not fixed or fixed[-1]["seeds"] != planned[0].n_seeds:
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        fixed.append({"seeds": planned[0].n_seeds, "fixed": when, "finished_runs": finished})
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_when_whole(path) as file:
            file.write(f"{json.dumps(fixed, indent=1)}\n".encode())
    return " ".join(
        f"The number of runs was fixed at {entry['seeds']} of each on {entry['fixed']}, "
        f"when {entry['finished_runs'] or 'none'} were finished."
        for entry in fixed
    )


def _time_left(wanted: list[tuple[int, Trainings]]) -> str:
    seconds = 0.0
    for trainings in {id(trainings): trainings for _, trainings in wanted}.values():
        done = [run.results["train_seconds"] for run in trainings.finished().runs]
        if not done:
            return " (time left unknown until each network has a run)"
        seconds += (trainings.n_seeds - len(done)) * sum(done) / len(done)
    return f" (about {max(1, round(seconds / 60))} min left)"


def _run(command: list[str]) -> int:
    """Run a training until it ends, or until it has stopped on a signal and saved its state."""
    received: list[int] = []
    with subprocess.Popen(command) as process:

        def pass_on(number: int, frame: FrameType | None) -> None:
            received.append(number)
            process.send_signal(number)  # a terminal sends it to both processes; twice counts once

        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        handle_signals(pass_on)
        try:
            return process.wait() or (128 + received[0] if received else 0)  # 0: it had ended before the signal
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
