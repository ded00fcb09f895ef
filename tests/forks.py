"""Processes of their own without the five seconds that each import of Lightning takes.

A server imports the command line once for each process of pytest, and forks a child for each `Fork`.
"""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "src.cli.main", "src.report.page", "src.tuning.report"])


class Outcome(NamedTuple):
    """What a command leaves: exit code (or minus the number of a signal), standard output and error."""

    code: int
    out: str
    err: str

    @property
    def run(self) -> Path:
        """The run folder that `fit` names in its last lines."""
        found = re.search(r"^Run: +(.+)$", self.out, re.MULTILINE)
        assert found, self.out + self.err
        return Path(found[1])


class Fork:
    """A process with an environment, a working directory and outputs of its own, in a new process group.

    Args:
        folder: Where the outputs are written, as ``<number>.out`` and ``<number>.err``.
        args: Arguments of `function`.
        function: What the process runs; it returns the exit code or None. By default the command line.
        env: Variables that are added to the environment.
        cwd: The working directory.
    """

    number = 0

    def __init__(
        self,
        folder: Path,
        *args: str,
        function: Callable[..., int | None] | None = None,
        env: dict[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        Fork.number += 1
        self.out, self.err = (folder / f"{Fork.number}.{name}" for name in ("out", "err"))
        settings = (function or command_line, args, os.environ | (env or {}), cwd, self.out, self.err)
        self._process = CONTEXT.Process(target=_child, args=settings, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.is_alive()

    def send_signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process and all that it has started."""
        with suppress(ProcessLookupError):  # it has ended, or hasn't made its group yet
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()

    def wait_until(self, condition: Callable[[], bool], timeout: float = 120) -> None:
        """Wait until `condition` holds; fail if the process ends before."""
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.is_running or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(self.wait())
            time.sleep(0.05)

    def wait(self, timeout: float = 300) -> Outcome:
        """Wait until the process ends; after `timeout` seconds, kill it."""
        self._process.join(timeout)
        if self.is_running:
            self.kill()
            self._process.join()
        assert self._process.exitcode is not None
        outputs = [path.read_text() if path.exists() else "" for path in (self.out, self.err)]
        return Outcome(self._process.exitcode, *outputs)

    def finish(self, timeout: float = 300) -> str:
        """Wait until the process ends without an error, and return its outputs."""
        outcome = self.wait(timeout)
        assert outcome.code == 0, outcome
        return outcome.out + outcome.err


def _child(
    function: Callable[..., int | None],
    args: tuple[str, ...],
    env: dict[str, str],
    cwd: Path,
    out: Path,
    err: Path,
) -> NoReturn:
    import torch
    from lightning.pytorch.utilities import rank_zero_only

    os.setsid()
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    # What a new interpreter, torch and Lightning read from the environment when they are imported.
    sys.path[:0] = [str(cwd), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    if threads := env.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    rank_zero_only.rank = int(env.get("LOCAL_RANK", env.get("SLURM_PROCID", 0)))  # type: ignore[attr-defined]
    sys.exit(function(*args))


def command_line(*args: str) -> int:
    """Do what ``python -m src`` does."""
    from src.cli.main import main

    sys.argv = [str(ROOT / "src" / "__main__.py"), *args]
    return main()


def command_line_with_forked_trainings(*args: str) -> int:
    """The command line, where ``compare --train`` forks the trainings that it would start."""
    subprocess.Popen = ForkedPopen  # type: ignore
    return command_line(*args)


class ForkedPopen:
    """A `subprocess.Popen` of ``python -m src`` that forks this process."""

    def __init__(
        self, command: list[str], stdout: Any = None, stderr: Any = None, env: dict[str, str] | None = None
    ) -> None:
        assert command[:3] == [sys.executable, "-m", "src"]
        self.code: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        os.environ.update(env or {})
        for file, descriptor in ((stdout, 1), (stderr, 2)):
            if file is not None:
                os.dup2(file.fileno(), descriptor)
        try:
            code: Any = command_line(*command[3:])
        except SystemExit as exit_:
            code = exit_.code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        if self.code is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.code = os.waitstatus_to_exitcode(ended[1])
        return self.code
