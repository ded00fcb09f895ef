"""Commands of this package side by side: each in a process of its own, with its share of threads or a GPU."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from filelock import Timeout
from tqdm import tqdm

from src.system.files import locked
from src.system.machine import cpu_cores
from src.system.signals import SIGNALS, Interrupted, temporary_handler

BAR = re.compile(r"\| *\d+/[\d?]+ \[")  # any of Lightning's progress bars
TRAINING_BAR = re.compile(r"(Epoch [\d/]+): +(\d+%)\|")
POLL = 0.1  # seconds


@dataclass(eq=False)
class Job:
    """A command to run.

    Args:
        name: For messages.
        words: The command line, without ``python -m src``.
        announce: Returns the line that is printed when the job starts.
        lock: A file that is locked while the job runs. If another process holds it, the job waits.
        is_done: Whether there is nothing to do, asked before the start.
        is_taken: Whether a process without the lock already does this, for example one whose parent was killed.
    """

    name: str
    words: list[str]
    announce: Callable[[], str] = lambda: ""
    lock: Path | None = None
    is_done: Callable[[], bool] = lambda: False
    is_taken: Callable[[], bool] = lambda: False


def run_side_by_side(jobs: list[Job], n_processes: int, goes_on: str, has_bar: bool = True) -> list[str]:
    """Run jobs, `n_processes` at a time, with one display of their lines and a bar. One at a time uses the terminal.

    Returns:
        A sentence about each job that failed. It doesn't end the others.

    Raises:
        Interrupted: A signal ended this process or a job, and so all other jobs. The message is `goes_on`.
    """
    failed: list[str] = []
    active: dict[int, _Process] = {}  # by the slot, which decides the GPU
    waiting, told = list(jobs), False
    with (
        tempfile.TemporaryDirectory() as folder,
        _passing_on_signals(active) as received,
        tqdm(total=len(jobs), unit="run", disable=None if has_bar and n_processes > 1 else True) as bar,
    ):
        while active or (waiting and not received):
            for slot in sorted(set(range(n_processes)) - active.keys()):
                if not received and (started := _start_next(waiting, slot, n_processes, Path(folder))):
                    active[slot] = started
                    if received:  # while the job was starting
                        _send({slot: started}, received[-1])
            if waiting and not active and not received and not told:
                told = True
                tqdm.write(f"Other processes work on: {', '.join(job.name for job in waiting)}. Waiting for them.")
            for slot, process in list(active.items()):
                code = process.popen.poll()
                process.show_lines()
                if code is None:
                    continue
                del active[slot]
                bar.update()
                if (number := code - 128 if code > 0 else -code) in SIGNALS:  # below 0: while Python starts or ends
                    received.append(number)
                    _send(active, number)
                elif code:
                    failed.append(f"{process.job.name} failed with exit code {code}{process.last_error()}")
                    tqdm.write(failed[-1], file=sys.stderr)
                process.held.close()
            bar.set_postfix_str(" | ".join(f"{p.job.name}: {p.progress}" for p in active.values() if p.progress))
            time.sleep(POLL)
    if received:
        raise Interrupted(received[0], goes_on)
    return failed


class _Process:
    """A job that runs. With others beside it, its outputs go to files in `folder`."""

    def __init__(self, job: Job, held: ExitStack, env: dict[str, str], folder: Path | None) -> None:
        self.job = job
        self.held = held  # its lock and its files
        self.rest = ""  # the line that isn't complete
        self.progress = ""
        command = [sys.executable, "-m", "src", *job.words]
        self.out = self.err = None
        if folder is None:
            self.popen = subprocess.Popen(command)
            return
        paths = [Path(tempfile.mkdtemp(dir=folder), name) for name in ("out", "err")]
        out, err = (held.enter_context(path.open("wb")) for path in paths)
        self.out, self.err = (held.enter_context(path.open("rb")) for path in paths)
        self.popen = subprocess.Popen(command, stdout=out, stderr=err, env=os.environ | env)

    def show_lines(self) -> None:
        """Print the new lines of the standard output. A progress bar in them only changes `progress`."""
        if self.out is None:
            return
        *lines, self.rest = (self.rest + self.out.read().decode(errors="replace")).split("\n")
        for line in lines:
            text = line.rpartition("\r")[2].strip()
            if text and not BAR.search(text):
                tqdm.write(f"{self.job.name}: {text}", file=sys.stdout)
        if bars := TRAINING_BAR.findall(self.rest):
            self.progress = " ".join(bars[-1])
            self.rest = self.rest.rpartition("\r")[2]

    def last_error(self) -> str:
        """The end of the standard error, where it went to a file."""
        if self.err is None:
            return "; see above."
        lines = self.err.read().decode(errors="replace").strip().splitlines()
        return ":\n" + "\n".join(line.rpartition("\r")[2] for line in lines[-5:]) if lines else "."


def _start_next(waiting: list[Job], slot: int, n_processes: int, folder: Path) -> _Process | None:
    """Start the first job that no other process works on, and take it from the list. Drop those that are done."""
    for job in list(waiting):
        with ExitStack() as stack:
            if job.lock is not None:
                job.lock.parent.mkdir(parents=True, exist_ok=True)
                try:
                    stack.enter_context(locked(job.lock, timeout=0))
                except Timeout:
                    continue
            if not job.is_done():
                if job.is_taken():
                    continue
                if text := job.announce():
                    tqdm.write(text, file=sys.stdout)
                    sys.stdout.flush()
                waiting.remove(job)
                alone = n_processes == 1
                return _Process(job, stack.pop_all(), environment(slot, n_processes), None if alone else folder)
        waiting.remove(job)
    return None


def environment(slot: int, n_processes: int) -> dict[str, str]:
    """The variables of one of several processes: its share of the cores, and a GPU if there are several.

    Args:
        slot: Number of the process, 0 … n_processes - 1.
        n_processes: How many run at a time.
    """
    share = max(1, cpu_cores() // n_processes)
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # OpenMP allows a list, for nested threads
    own = {"OMP_NUM_THREADS": str(min(share, int(given) if given.isdigit() else share))}
    if (n_gpus := torch.cuda.device_count()) > 1:
        names = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(n_gpus)))).split(",")
        own["CUDA_VISIBLE_DEVICES"] = names[slot % n_gpus]
    return own


@contextmanager
def _passing_on_signals(active: dict[int, _Process]) -> Iterator[list[int]]:
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
            for process in active.values():
                process.popen.wait()
            raise


def _send(active: dict[int, _Process], number: int) -> None:
    for process in list(active.values()):
        with suppress(ValueError):  # Windows can't send SIGINT, but its console sends Ctrl-C to all processes
            process.popen.send_signal(number)
