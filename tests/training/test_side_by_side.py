"""Several trainings at a time: their threads and GPUs, their signals, failures and locks."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from src.comparison import trainings
from src.comparison.trainings import Trainings, fix_number
from src.runs.folder import Run
from src.runs.recipe import recipe
from src.system.errors import UserError
from src.training import side_by_side
from src.training.side_by_side import Job, environment, run_side_by_side
from src.training.stopping import Interrupted
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
    """Jobs whose words are a Python script, without the seconds of an import of Lightning."""
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


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("results.json"))]


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


def test_two_run_at_a_time_and_their_lines_are_named(
    scripts: None, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    jobs = [Job(f"job {number}", [AT_WORK.format(folder=str(tmp_path), number=number)]) for number in range(4)]
    assert run_side_by_side(jobs, 2, "") == []
    lines = [line for line in capfd.readouterr().out.splitlines() if "at work" in line]
    assert sorted(line.partition(": at work: ")[0] for line in lines) == [f"job {number}" for number in range(4)]
    assert {line[-1] for line in lines} <= {"1", "2"}


@pytest.mark.parametrize("n", [1, 2])
def test_one_that_fails_is_named_and_the_others_go_on(
    scripts: None, capfd: pytest.CaptureFixture[str], n: int, tmp_path: Path
) -> None:
    failing = Job("the bad one", ["import sys; sys.exit('error: too bad')"])
    good = [Job(f"good {number}", [f"open({str(tmp_path / str(number))!r}, 'w')"]) for number in range(3)]
    (sentence,) = run_side_by_side([failing, *good], n, "")
    assert sentence.startswith("the bad one failed with exit code 1")
    assert "error: too bad" in capfd.readouterr().err
    assert len(list(tmp_path.iterdir())) == 3


WAITS = "import signal, sys, time; signal.signal({number}, lambda *_: sys.exit(128 + {number})); {then}; time.sleep(60)"


@pytest.mark.parametrize("n", [1, 2])
def test_a_signal_ends_all(scripts: None, n: int, tmp_path: Path) -> None:
    number = int(signal.SIGTERM)
    parent = f"import os; time.sleep(1); os.kill({os.getpid()}, {number})"
    jobs = [
        Job("one", [WAITS.format(number=number, then=parent)]),
        Job("two", [WAITS.format(number=number, then="pass")]),
        Job("three", [f"open({str(tmp_path / 'late')!r}, 'w')"]),
    ]
    started = time.monotonic()
    with pytest.raises(Interrupted, match="^Go on.$") as stopped:
        run_side_by_side(jobs, n, "Go on.")
    assert stopped.value.exit_code == 128 + number
    assert time.monotonic() - started < 30
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("code", [130, -signal.SIGINT, 143, -signal.SIGTERM, 138])
def test_a_job_that_a_signal_ended_has_not_failed(scripts: None, code: int) -> None:
    end = f"import os, sys; os.kill(os.getpid(), {-code})" if code < 0 else f"import sys; sys.exit({code})"
    default = f"import signal; signal.signal({-code}, signal.SIG_DFL); " if code < 0 else ""
    with pytest.raises(Interrupted, match="Finished runs are kept") as stopped:
        run_side_by_side([Job("it", [default + end]), Job("late", ["1/0"])], 1, "Finished runs are kept.")
    assert stopped.value.exit_code == (code if code > 0 else 128 - code)


def test_a_signal_after_the_job_has_ended_stops_the_others(scripts: None) -> None:
    script = "import os, signal, time; signal.signal(15, signal.SIG_IGN); os.kill(os.getppid(), 15); time.sleep(0.3)"
    with pytest.raises(Interrupted):
        run_side_by_side([Job("it", [script]), Job("late", ["1/0"])], 1, "")


def test_a_signal_while_a_job_starts_ends_it_too(scripts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    start = side_by_side.subprocess.Popen

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        started = start(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)
        return started

    monkeypatch.setattr(side_by_side.subprocess, "Popen", interrupted)
    started = time.monotonic()
    with pytest.raises(Interrupted):
        run_side_by_side([Job("it", ["import time; time.sleep(60)"])], 1, "")
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
    with pytest.raises(FileExistsError):
        run_side_by_side(
            [Job("it", ["import time; time.sleep(60)"]), Job("bad", [], lock=tmp_path / "file" / "it")], 2, ""
        )
    assert [process.poll() for process in started] == [-signal.SIGTERM]


def test_a_job_waits_for_the_lock_of_another_process(scripts: None, tmp_path: Path) -> None:
    lock, made = tmp_path / "folder" / ".lock", tmp_path / "made"
    asked: list[float] = []

    def is_done() -> bool:
        asked.append(time.monotonic())
        return made.exists()

    lock.parent.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(lock=str(lock), made=str(made))], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    assert run_side_by_side([Job("it", ["1/0"], lock=lock, is_done=is_done)], 1, "") == []  # it didn't start
    assert holder.wait() == 0
    assert len(asked) == 1


def test_a_job_waits_while_a_process_without_the_lock_does_it(
    scripts: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    taken = iter([True, True, False])
    script = f"open({str(tmp_path / 'made')!r}, 'w')"
    assert run_side_by_side([Job("it", [script], lock=tmp_path / "lock", is_taken=lambda: next(taken))], 1, "") == []
    assert (tmp_path / "made").exists() and next(taken, None) is None
    assert "Other processes work on: it. Waiting for them." in capfd.readouterr().out


HOLD = """
import time
from filelock import FileLock
with FileLock({lock!r}):
    print("held", flush=True)
    time.sleep(1)
    open({made!r}, "w")
"""


def compare_without_tests(*words: str) -> int:
    """End after the trainings: the corruptions of the test images take half a minute."""
    from src.comparison import compare

    def end(*args: Any) -> NoReturn:
        raise UserError("all are trained")

    compare._test = end  # type: ignore[assignment]
    return command_line_with_forked_trainings(*words)


def test_two_comparisons_at_once_train_each_run_once(mnist: Path, tmp_path: Path) -> None:
    words = ["compare", "--train", *configs(tmp_path, mnist, epochs=1), "--seeds=1", "--jobs=2"]
    comparisons = [
        Fork(tmp_path, *words, f"--output={tmp_path}/{name}", function=compare_without_tests) for name in "ab"
    ]
    outcomes = [comparison.wait() for comparison in comparisons]
    assert all(one.code == 1 and one.err.endswith("error: all are trained\n") for one in outcomes), outcomes
    for width in (0, 16):
        runs = results(tmp_path / f"width{width}")
        assert [run["seed"] for run in runs] == [0]
        assert len(list((tmp_path / f"width{width}").rglob("config.yaml"))) == 1
    announced = re.findall(r"^Run (\d) of 2:", "".join(one.out for one in outcomes), re.MULTILINE)
    assert sorted(announced) == list("12")


def command_line_without_sigint(*words: str) -> int:
    """As on Windows, where one process cannot send SIGINT to another."""

    def send_signal(self: ForkedPopen, number: signal.Signals) -> None:
        if number == signal.SIGINT:
            raise ValueError("Unsupported signal: 2")
        os.kill(self.pid, number)

    ForkedPopen.send_signal = send_signal  # type: ignore[method-assign]
    return command_line_with_forked_trainings(*words)


def test_ctrl_c_saves_all_runs(mnist: Path, tmp_path: Path) -> None:
    words = ["compare", "--train", *configs(tmp_path, mnist, epochs=10000), "--seeds=1", "--jobs=2"]
    process = Fork(tmp_path, *words, f"--output={tmp_path}/all", function=command_line_without_sigint)
    runs = [Run(tmp_path / f"width{width}" / "lightning_logs" / "tiny" / "version_0") for width in (0, 16)]
    process.wait_until(lambda: all(run.checkpoint.exists() for run in runs))
    interrupted = tmp_path / "interrupted"
    interrupted.touch()  # `time.time` is up to 4 ms ahead of the clock of the files
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    outcome = process.wait(60)
    assert outcome.code == 128 + signal.SIGINT, outcome
    assert outcome.err.endswith("Finished runs are kept. Run the same command again to continue.\n")
    assert all(run.checkpoint.stat().st_mtime >= interrupted.stat().st_mtime for run in runs)


def test_a_run_that_a_process_trains_is_taken(lenet5_run: Path) -> None:
    """As by a training whose comparison was killed."""
    run = Run(lenet5_run)
    planned = Trainings("lenet5.yaml", "LeNet5", recipe(run.config), lenet5_run.parent, n_seeds=2)
    assert not planned.is_training(0)
    with run.locked():
        assert planned.is_training(0)
        assert not planned.is_training(1)


def test_a_changed_number_of_seeds_is_told(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan.json"

    def said(seeds: int) -> str:
        return fix_number([Trainings("mine.yaml", "Mine", {}, tmp_path / "runs", seeds)], path)

    first = said(2)
    assert first.endswith("when none were finished.") and said(2) == first
    assert said(5).startswith(f"{first} The number of runs was fixed at 5 of each on ")
    path.write_text("{")
    with pytest.raises(UserError, match=r"plan\.json is damaged\. Delete it"):
        said(5)


def test_trainings_without_results_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As with limit_test_batches: 0 in the config."""
    monkeypatch.setattr(trainings, "run_side_by_side", lambda *args: [])
    with pytest.raises(UserError, match="The trainings of mine.yaml leave no results."):
        trainings.train_missing([Trainings("mine.yaml", "Mine", {}, tmp_path, n_seeds=1)])
