"""Commands of this package side by side: each in a process of its own, with its share of threads or a GPU."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from tqdm import tqdm

from src.system.machine import cpu_cores
from src.system.signals import SIGNALS, Interrupted, temporary_handler

POLL = 0.1  # seconds


@dataclass(frozen=True)
class Job:
    """A command to run."""

    name: str  # for messages
    args: list[str]  # the command line, without ``python -m src``
    log: Path  # file to which its output is added; a job that runs alone uses the terminal instead


Active = dict[int, tuple[Job, "subprocess.Popen[bytes]"]]  # by slot, which decides the GPU


def run_side_by_side(jobs: list[Job], n_processes: int, message_on_interrupt: str) -> list[str]:
    """Run jobs, `n_processes` at a time.

    Returns:
        A sentence about each job that failed. It doesn't end the others.

    Raises:
        Interrupted: A signal ended this process or a job, and so all other jobs.
    """
    waiting, failed = list(jobs), list[str]()
    active: Active = {}
    no_bar = True if n_processes == 1 or not jobs else None  # None: not where the output is a file
    with _passing_on_signals(active) as received, tqdm(total=len(jobs), unit="run", disable=no_bar) as bar:
        while active or (waiting and not received):
            for slot in sorted(set(range(n_processes)) - active.keys()):
                if waiting and not received:
                    job = waiting.pop(0)
                    place = f"{job.name} ({len(jobs) - len(waiting)} of {len(jobs)})"
                    tqdm.write(place if n_processes == 1 else f"{place}: {job.log}")
                    sys.stdout.flush()
                    active[slot] = job, _start(job, slot, n_processes)
                    if received:  # while the job was starting
                        _send({slot: active[slot]}, received[-1])
            for slot, (job, process) in list(active.items()):
                if (code := process.poll()) is None:
                    continue
                del active[slot]
                bar.update()
                if (number := code - 128 if code > 0 else -code) in SIGNALS:  # below 0: while Python starts or ends
                    received.append(number)
                    _send(active, number)
                elif code:
                    where = "see above" if n_processes == 1 else f"see {job.log}: {_last_line(job.log)}"
                    failed.append(f"{job.name} failed with exit code {code}; {where}")
                    tqdm.write(failed[-1], file=sys.stderr)
            time.sleep(POLL)
    if received:
        raise Interrupted(received[0], message_on_interrupt)
    return failed


def _start(job: Job, slot: int, n_processes: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "src", *job.args]
    if n_processes == 1:
        return subprocess.Popen(command)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment(slot, n_processes))


def _last_line(log: Path) -> str:
    """The last line of a log that says what went wrong."""
    lines = [line.strip() for line in log.read_text(errors="replace").replace("\r", "\n").splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("See: ")), "")


def environment(slot: int, n_processes: int) -> dict[str, str]:
    """The variables of process number `slot` of several: its share of the cores, and a GPU if there are several."""
    share = max(1, cpu_cores() // n_processes)
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # OpenMP allows a list, for nested threads
    variables = {"OMP_NUM_THREADS": str(min(share, int(limit) if limit.isdigit() else share))}
    if (n_gpus := torch.cuda.device_count()) > 1:
        names = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(n_gpus)))).split(",")
        variables["CUDA_VISIBLE_DEVICES"] = names[slot % n_gpus]
    return variables


@contextmanager
def _passing_on_signals(active: Active) -> Iterator[list[int]]:
    """Send each signal to all processes too, and end them on an exception. Yields the list of the signals so far."""
    received: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _send(active, number)  # a terminal sends it to all processes; twice counts once

    with temporary_handler(pass_on):
        try:
            yield received
        except Exception:
            _send(active, signal.SIGTERM)
            for _, process in active.values():
                process.wait()
            raise


def _send(active: Active, number: int) -> None:
    for _, process in list(active.values()):
        with suppress(ValueError):  # Windows can't send SIGINT, but its console sends Ctrl-C to all processes
            process.send_signal(number)
