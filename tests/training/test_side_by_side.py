"""Several trainings at a time: their threads and GPUs, their logs, signals and failures."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from src.runs.folder import Run
from src.system.signals import Interrupted
from src.training import side_by_side
from src.training.side_by_side import Job, environment, run_side_by_side
from tests.conftest import NO_TABS
from tests.forks import Fork, ForkedPopen, command_line_with_forked_trainings

CONFIG = """
model: {{class_path: tests.tiny.Tiny, init_args: {{width: {width}}}}}
data: {{data_dir: {data}, batch_size: 256}}
trainer: {{max_epochs: {epochs}, limit_train_batches: 30, limit_val_batches: 2, limit_test_batches: 2,
    default_root_dir: {folder}}}
tensorboard: {tabs}
"""


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs whose arguments are a Python script, without the seconds of an import of Lightning."""
    popen = subprocess.Popen

    def start(command: list[str], **kwargs: Any) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-c", *command[3:]] if command[1:3] == ["-m", "src"] else command, **kwargs)

    monkeypatch.setattr(side_by_side.subprocess, "Popen", start)


def configs(folder: Path, data: Path, epochs: int) -> list[str]:
    paths = [folder / f"tiny{width}.yaml" for width in (0, 16)]
    for path, width in zip(paths, (0, 16), strict=True):
        path.write_text(
            CONFIG.format(width=width, data=data, epochs=epochs, folder=folder / f"width{width}", tabs=NO_TABS)
        )
    return [str(path) for path in paths]


def script(folder: Path, name: str, code: str) -> Job:
    return Job(name, [code], folder / "logs" / f"{name}.log")


def test_each_of_several_has_its_share_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(side_by_side, "cpu_cores", lambda: 8)
    assert [environment(0, n)["OMP_NUM_THREADS"] for n in (1, 2, 3, 16)] == ["8", "4", "2", "1"]
    for limit in ("3", "3,1"):  # of the user
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert [environment(0, n)["OMP_NUM_THREADS"] for n in (1, 2, 4)] == ["3", "3", "2"]


def test_each_of_several_has_a_gpu_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [environment(slot, 4)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["0", "1", "2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")  # the user's choice
    assert [environment(slot, 4)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["2", "5", "7", "2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "CUDA_VISIBLE_DEVICES" not in environment(0, 4)


# Says how many are at work, and waits for the start of a neighbour.
AT_WORK = """
import pathlib, time
folder, number = pathlib.Path({folder!r}), {number}
(folder / f"started{{number}}").touch()
print("at work:", len(list(folder.glob("started*"))) - len(list(folder.glob("ended*"))), flush=True)
deadline = time.monotonic() + 30
while not (folder / f"started{{number ^ 1}}").exists():
    assert time.monotonic() < deadline
    time.sleep(0.01)
time.sleep(0.3)  # in which a third one would start
(folder / f"ended{{number}}").touch()
"""


def test_two_run_at_a_time_each_with_its_log(scripts: None, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    jobs = [
        script(tmp_path, f"job {number}", AT_WORK.format(folder=str(tmp_path), number=number)) for number in range(4)
    ]
    assert run_side_by_side(jobs, 2, "") == []
    logs = [job.log.read_text() for job in jobs]
    assert set(logs) <= {"at work: 1\n", "at work: 2\n"}
    out = capfd.readouterr().out
    for number, job in enumerate(jobs, start=1):
        assert f"{job.name} ({number} of 4): {job.log}\n" in out


@pytest.mark.parametrize("n", [1, 2])
def test_one_that_fails_is_named_and_the_others_go_on(
    scripts: None, capfd: pytest.CaptureFixture[str], n: int, tmp_path: Path
) -> None:
    failing = script(
        tmp_path, "bad", "import sys; print('progress', end='\\r'); sys.exit('error: too bad\\nSee: --help')"
    )
    good = [script(tmp_path, str(number), f"open({str(tmp_path / str(number))!r}, 'w')") for number in range(3)]
    failing.log.parent.mkdir()
    failing.log.write_text("error: an earlier one\n")
    (sentence,) = run_side_by_side([failing, *good], n, "")
    where = "see above" if n == 1 else f"see {failing.log}: error: too bad"
    assert sentence == f"bad failed with exit code 1; {where}"
    assert sentence in capfd.readouterr().err
    assert failing.log.read_text().startswith("error: an earlier one\n")  # nothing is overwritten
    assert all((tmp_path / str(number)).exists() for number in range(3))


WAITS = "import signal, sys, time; signal.signal({number}, lambda *_: sys.exit(128 + {number})); {then}; time.sleep(60)"


@pytest.mark.parametrize("n", [1, 2])
def test_a_signal_ends_all(scripts: None, n: int, tmp_path: Path) -> None:
    number = int(signal.SIGTERM)
    parent = f"import os; time.sleep(1); os.kill({os.getpid()}, {number})"
    jobs = [
        script(tmp_path, "one", WAITS.format(number=number, then=parent)),
        script(tmp_path, "two", WAITS.format(number=number, then="pass")),
        script(tmp_path, "three", f"open({str(tmp_path / 'late')!r}, 'w')"),
    ]
    started = time.monotonic()
    with pytest.raises(Interrupted, match="^Go on.$") as stopped:
        run_side_by_side(jobs, n, "Go on.")
    assert stopped.value.exit_code == 128 + number
    assert time.monotonic() - started < 30
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("code", [130, -signal.SIGINT, 143, -signal.SIGTERM, 138])
def test_a_job_that_a_signal_ended_has_not_failed(scripts: None, tmp_path: Path, code: int) -> None:
    end = f"import os, sys; os.kill(os.getpid(), {-code})" if code < 0 else f"import sys; sys.exit({code})"
    default = f"import signal; signal.signal({-code}, signal.SIG_DFL); " if code < 0 else ""
    with pytest.raises(Interrupted, match="Finished runs are kept") as stopped:
        jobs = [script(tmp_path, "it", default + end), script(tmp_path, "late", "1/0")]
        run_side_by_side(jobs, 1, "Finished runs are kept.")
    assert stopped.value.exit_code == (code if code > 0 else 128 - code)


def test_a_signal_after_the_job_has_ended_stops_the_others(scripts: None, tmp_path: Path) -> None:
    code = "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.kill(os.getppid(), 15); time.sleep(0.3)"
    with pytest.raises(Interrupted):
        run_side_by_side([script(tmp_path, "it", code), script(tmp_path, "late", "1/0")], 1, "")


def test_a_signal_while_a_job_starts_ends_it_too(
    scripts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start = side_by_side.subprocess.Popen

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        started = start(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)
        return started

    monkeypatch.setattr(side_by_side.subprocess, "Popen", interrupted)
    started = time.monotonic()
    with pytest.raises(Interrupted):
        run_side_by_side([script(tmp_path, "it", "import time; time.sleep(60)")], 1, "")
    assert time.monotonic() - started < 30


def test_a_job_that_cannot_be_started_ends_the_others(
    scripts: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start, started = side_by_side.subprocess.Popen, []

    def spy(*args: Any, **kwargs: Any) -> Any:
        started.append(start(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(side_by_side.subprocess, "Popen", spy)
    (tmp_path / "file").touch()
    bad = Job("bad", ["pass"], tmp_path / "file" / "bad.log")
    with pytest.raises(FileExistsError):
        run_side_by_side([script(tmp_path, "it", "import time; time.sleep(60)"), bad], 2, "")
    assert [process.poll() for process in started] == [-signal.SIGTERM]


def command_line_without_sigint(*args: str) -> int:
    """As on Windows, where one process cannot send SIGINT to another."""

    def send_signal(self: ForkedPopen, number: signal.Signals) -> None:
        if number == signal.SIGINT:
            raise ValueError("Unsupported signal: 2")
        os.kill(self.pid, number)

    ForkedPopen.send_signal = send_signal  # type: ignore[method-assign]
    return command_line_with_forked_trainings(*args)


def test_ctrl_c_saves_all_runs(mnist: Path, tmp_path: Path) -> None:
    args = ["compare", "--train", *configs(tmp_path, mnist, epochs=10000), "--seeds=1", "--jobs=2"]
    process = Fork(tmp_path, *args, f"--output={tmp_path}/all", function=command_line_without_sigint)
    runs = [Run(tmp_path / f"width{width}" / "lightning_logs" / "tiny" / "version_0") for width in (0, 16)]
    process.wait_until(lambda: all(run.checkpoint.exists() for run in runs))
    interrupted = tmp_path / "interrupted"
    interrupted.touch()  # `time.time` is up to 4 ms ahead of the clock of the files
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    outcome = process.wait(60)
    assert outcome.code == 128 + signal.SIGINT, outcome
    assert outcome.err.endswith("Finished runs are kept. Run the same command again to continue.\n")
    assert all(run.checkpoint.stat().st_mtime >= interrupted.stat().st_mtime for run in runs)
