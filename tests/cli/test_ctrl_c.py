"""Ctrl-C at any moment ends a command in one line, with exit code 130."""

import inspect
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from src.cli.commands import COMMANDS
from src.system.signals import Interrupted
from tests.conftest import ROOT, SHORT, RunCLI

SWALLOWS = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:  # as some compiled modules do
    pass
raise RuntimeError("another error, caused by the first")
"""


def command(*args: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "src", *args],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_ctrl_c_in_an_import_that_swallows_it(tmp_path: Path) -> None:
    (tmp_path / "lightning.py").write_text(SWALLOWS)
    process = command("test", PYTHONPATH=str(tmp_path))
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "Stopped.\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fit", "test", "predict", "export"])
def test_ctrl_c_at_any_moment(name: str, lenet5_run: Path, tmp_path: Path) -> None:
    args = [f"--ckpt_path={lenet5_run / 'checkpoints' / 'last.ckpt'}"]
    args += [f"--output={tmp_path}"] if name == "export" else []
    if name == "fit":
        args = ["--model=LeNet5", *SHORT, "--trainer.limit_test_batches=5", f"--trainer.default_root_dir={tmp_path}"]
    started = time.monotonic()
    command(name, *args).communicate()
    seconds = time.monotonic() - started
    moments = random.Random(0)
    stopped = 0
    for _ in range(12):
        process = command(name, *args)
        time.sleep(moments.uniform(0.1, seconds))
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors and "Exception ignored" not in errors, errors
        if process.returncode not in (0, -signal.SIGINT):  # ended, or Python was shutting down
            assert process.returncode == 130, errors
            assert "Stopped" in errors.splitlines()[-1]
            stopped += 1
    assert stopped > 6


def test_a_progress_bar_is_not_drawn_after_the_last_line(cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise Interrupted(signal.SIGINT, "Stopped here.")

    def export(**options: Any) -> None:
        progress = tqdm(range(3))
        _ = [stop() for _ in progress]  # type: ignore[func-returns-value]

    export.__signature__ = inspect.signature(COMMANDS["export"])  # type: ignore[attr-defined]
    monkeypatch.setitem(COMMANDS, "export", export)
    outcome = cli("export")
    assert outcome.code == 130
    assert "0/3" in outcome.err and outcome.err.endswith("\nStopped here.\n")
