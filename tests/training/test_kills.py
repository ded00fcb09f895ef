"""Real processes that are killed, stopped by a signal, or run out of disk."""

import os
import random
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from src.runs.checkpoints import CheckedCheckpointIO, load_checkpoint
from src.runs.folder import Run, find_runs
from src.training.stopping import SAME_SIGNAL, Stopping
from tests.conftest import RunCLI
from tests.forks import Fork, Outcome, command_line
from tests.training.conftest import SHORT, Stop, assert_same_run
from tests.training.test_distributed import finish, processes, run


def write_and_be_killed(path: str) -> None:
    CheckedCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(100_000)}}, path)
    os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)  # all is written, nothing is renamed
    CheckedCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(100_000)}}, path)


def test_killed_inside_a_write_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    killed = Fork(tmp_path, str(path), function=write_and_be_killed).wait()
    assert killed.code == -signal.SIGKILL, killed
    assert not load_checkpoint(path)["state_dict"]["w"].any()
    assert (tmp_path / ".last.ckpt.part").exists()


def send_itself_signals() -> None:
    stopping = Stopping()
    signal.signal(signal.SIGTERM, stopping._receive)
    for number in range(1, 4):
        os.kill(os.getpid(), signal.SIGTERM)
        print("after signal", number, flush=True)
        time.sleep((number - 1) * SAME_SIGNAL)


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """A signal that arrives twice, directly and passed on by a launcher, counts once."""
    ended = Fork(tmp_path, function=send_itself_signals).wait()
    assert (ended.code, ended.out) == (143, "after signal 1\nafter signal 2\n")


def command_line_on_a_full_disk(*args: str) -> int:
    """No file may grow beyond 2 MiB: the disk is full in the middle of the next checkpoint."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 2**20, 2 * 2**20))
    return command_line(*args)


def test_full_disk_keeps_the_checkpoint_before(cli: RunCLI, stop: Stop, tmp_path: Path) -> None:
    stop(3, signal.SIGTERM)
    folder = Path(cli("fit", "--model=LeNet5", *SHORT).err.split()[-1])
    last = folder / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    failed = Fork(tmp_path, "fit", "--resume", str(folder), function=command_line_on_a_full_disk).wait()
    assert failed.code == 1
    (line,) = [line for line in failed.err.splitlines() if "error:" in line]
    assert line.endswith(
        f"Cannot write a checkpoint to {last.parent}: File too large. {last} is the previous checkpoint."
    )
    assert "Traceback" not in failed.err
    assert last.read_bytes() == before
    assert {path.name for path in last.parent.iterdir()} <= {"last.ckpt", "previous.ckpt"}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["LeNet5", "CNN"])
def test_killed_at_hundreds_of_random_moments(mnist: Path, tmp_path: Path, model: str) -> None:
    runs = tmp_path / "killed" / "lightning_logs" / model.lower()
    settings = ["fit", f"--model={model}", *SHORT, f"--data.data_dir={mnist}", "--save_every_n_steps=1"]
    settings += ["--resume=auto", "--trainer.enable_progress_bar=false"]
    moments = random.Random(0)
    kills = compared = 0

    def fit(folder: str, seconds: float = 300) -> Outcome:
        """Kill the training after that time."""
        return Fork(tmp_path, *settings, f"--trainer.default_root_dir={tmp_path / folder}").wait(seconds)

    assert fit("whole").code == 0  # the first fork waits for the imports of the server
    started = time.perf_counter()
    assert fit("whole").code == 0
    seconds = time.perf_counter() - started
    while kills < 150:
        ended = fit("killed", moments.uniform(0, seconds))
        assert ended.code in (0, -signal.SIGKILL), ended
        killed = ended.code == -signal.SIGKILL
        kills += killed
        seconds *= 1.05 if killed else 0.9  # so that a third comes too late, however busy the machine
        for trained in find_runs(runs):
            if trained.checkpoint.exists():
                load_checkpoint(trained.checkpoint)
            if trained.is_finished:
                assert_same_run(tmp_path / "whole" / "lightning_logs" / model.lower() / "version_0", trained.folder)
                trained.folder.rename(tmp_path / f"compared_{compared}")
                compared += 1
    print(f"{kills} kills, {compared} runs finished identically")
    assert compared > 10


def ended(process: int) -> bool:
    """Whether it is gone, or a zombie that nobody has waited for, within ten seconds."""
    stat = Path(f"/proc/{process}/stat")
    for _ in range(100):
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("to_worker", [False, True])
def test_signal_to_any_process_ends_all_and_two_processes_resume_exactly(tmp_path: Path, to_worker: bool) -> None:
    settings = ["fit", "--model=CNN", *SHORT, "--trainer.limit_train_batches=40", "--data.batch_size=128"]
    settings += [*processes(2), "--resume=auto", "--save_every_n_steps=7"]
    whole, cut = (f"--trainer.default_root_dir={tmp_path / name}" for name in ("whole", "cut"))
    finish(run(tmp_path, *settings, whole))
    process = run(tmp_path, *settings, cut)
    folder = tmp_path / "cut" / "lightning_logs" / "cnn" / "version_0"
    while process.poll() is None and not Run(folder).checkpoint.exists():
        time.sleep(0.05)
    worker = int(subprocess.check_output(["pgrep", "-P", str(process.pid), "-f", "fit"], text=True).split()[0])
    os.kill(worker if to_worker else process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 143, output
    assert output.count("Go on with: python -m src fit --resume") == 1
    assert ended(worker)
    finish(run(tmp_path, *settings, cut))
    assert_same_run(tmp_path / "whole" / "lightning_logs" / "cnn" / "version_0", folder)


@pytest.mark.slow
def test_two_processes_stop_between_accumulated_gradients(tmp_path: Path) -> None:
    """They ask one another at steps that may lie inside an accumulation, where nothing can be saved."""
    settings = (
        f"--trainer.default_root_dir={tmp_path}",
        *processes(2),
        "--save_every_n_steps=200",
        "--data.batch_size=16",
    )
    limits = ("--trainer.accumulate_grad_batches=2", "--trainer.limit_train_batches=800")  # 400 steps in the epoch
    process = run(tmp_path, "fit", "--model=LeNet5", *settings, *limits)
    folder = tmp_path / "lightning_logs" / "lenet5" / "version_0"
    while process.poll() is None and not Run(folder).checkpoint.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    stopped = re.search(r"Stopped in epoch 1, after step (\d+)", output)
    assert stopped and 200 <= int(stopped[1]) < 400, output


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_others(tmp_path: Path) -> None:
    settings = (f"--trainer.default_root_dir={tmp_path}", *processes(2), "--save_every_n_steps=5")
    process = run(tmp_path, "fit", "--model=CNN", *settings)
    folder = tmp_path / "lightning_logs" / "cnn" / "version_0"
    while process.poll() is None and not Run(folder).checkpoint.exists():
        time.sleep(0.05)
    worker = int(subprocess.check_output(["pgrep", "-P", str(process.pid), "-f", "fit"], text=True).split()[0])
    os.kill(worker, signal.SIGKILL)
    output, _ = process.communicate(timeout=30)
    assert process.returncode != 0
    assert str(worker) in output or "error" in output
