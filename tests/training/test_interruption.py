"""A training that is stopped, killed, or runs out of disk goes on in its folder and ends as if nothing had happened."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lightning import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.models import Classifier
from src.runs.checkpoints import load_checkpoint
from src.runs.folder import Run, find_runs
from src.training.stopping import Stopping
from tests.conftest import ROOT, RunCLI
from tests.training.test_distributed import finish, processes, run
from tests.training.test_resume import assert_identical

SHORT = (
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=8",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=2",
)

Stop = Callable[[int, signal.Signals], None]


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Send this process a signal during a step of the next training."""
    end_of_step: Any = Stopping.on_train_batch_end

    def send(step: int, number: signal.Signals) -> None:
        def on_train_batch_end(self: Stopping, trainer: Trainer, *args: Any) -> None:
            if trainer.global_step == step and not self.received:  # a second one would end this process
                os.kill(os.getpid(), number)
            end_of_step(self, trainer, *args)

        monkeypatch.setattr(Stopping, "on_train_batch_end", on_train_batch_end)

    return send


def curves(run: Path) -> dict[str, Any]:
    found = json.loads((run / "results.json").read_text())["curves"]
    return {tag: found[tag] for tag in ("accuracy", "loss")}


def assert_same_run(whole: Path, resumed: Path) -> None:
    assert_identical(whole / "checkpoints" / "last.ckpt", resumed / "checkpoints" / "last.ckpt")
    assert curves(whole) == curves(resumed)
    first, second = (json.loads((run / "results.json").read_text())["test"] for run in (whole, resumed))
    assert first == second


@pytest.mark.parametrize(
    ("model", "settings"),
    [("LeNet5", ("--model.schedule=one_cycle", "--model.betas=[0.9, 0.99]", "--data.max_shift=2")), ("CNN", ())],
)
def test_stopped_five_times(cli: RunCLI, stop: Stop, model: str, settings: tuple[str, ...]) -> None:
    command = ("fit", f"--model={model}", *settings, *SHORT)
    whole = cli(*command).run
    # After step 8 comes the validation: the epoch is finished first. The last epoch ends with step 16.
    for step, number, saved_at in (
        (3, signal.SIGINT, 3),
        (7, signal.SIGTERM, 7),
        (8, signal.SIGTERM, 8),
        (12, signal.SIGINT, 12),
        (16, signal.SIGTERM, 16),
    ):
        stop(step, number)
        outcome = cli(*command, "--resume=auto")
        assert outcome.code == 128 + number
        folder = whole.with_name("version_1")
        assert f"after step {saved_at}. Go on with: python -m src fit --resume {folder}\n" in outcome.err
        assert load_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] == saved_at
        assert not (folder / "results.json").exists()
    stop(0, signal.SIGINT)
    outcome = cli("fit", f"--resume={folder}")
    assert outcome.code == 0, outcome.err
    assert f"Resuming {folder}" in outcome.out
    assert_same_run(whole, folder)
    for name in ("train", "validation", "test"):  # no gap, no double point, no second run
        events = EventAccumulator(str(folder / name))
        events.Reload()
        points = curves(folder)["loss"][name]
        assert [(str(event.step), event.value) for event in events.Scalars("loss")] == [
            (epoch, pytest.approx(value)) for epoch, value in points.items()
        ]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["version_0", "version_1"]

    again = cli("fit", f"--resume={folder}")
    assert again.code == 0
    assert f"{folder} is finished: {model}: test accuracy" in again.out


def test_resumed_time_is_that_of_the_whole_training(cli: RunCLI, stop: Stop) -> None:
    stop(3, signal.SIGTERM)
    folder = Path(cli("fit", "--model=LeNet5", *SHORT, "--resume=auto").err.split()[-1])
    checkpoint = folder / "checkpoints" / "last.ckpt"
    saved = torch.load(checkpoint, weights_only=True)
    saved["callbacks"]["Timer"]["time_elapsed"]["train"] = 1000.0
    torch.save(saved, checkpoint)
    stop(0, signal.SIGTERM)
    assert cli("fit", f"--resume={folder}").code == 0
    assert 1000 < json.loads((folder / "results.json").read_text())["train_seconds"] < 1100


def test_saves_inside_an_epoch_where_asked_to(cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save: Any = Trainer.save_checkpoint

    def record(self: Trainer, path: Path, *args: Any, **kwargs: Any) -> None:
        saved.append(self.global_step)
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", record)
    assert cli("fit", "--model=LeNet5", *SHORT, "--save_every_n_steps=3").code == 0
    assert saved == [3, 6, 8, 9, 12, 15, 16]


def test_other_settings_are_refused(cli: RunCLI, stop: Stop) -> None:
    stop(3, signal.SIGTERM)
    folder = Path(cli("fit", "--model=LeNet5", *SHORT).err.split()[-1])
    for setting in ("--model=CNN", "--data.batch_size=64", "--trainer.max_epochs=3", "--seed_everything=1"):
        outcome = cli("fit", f"--resume={folder}", setting)
        assert outcome.code == 1
        assert "was started with other settings" in outcome.err
        assert setting.partition("=")[0].strip("-") in outcome.err
    assert (
        "version_1" in cli("fit", "--model=LeNet5", *SHORT, "--resume=auto", "--seed_everything=1").err
    )  # another run


def test_auto_takes_the_checkpoint_before_a_damaged_one_and_says_so(cli: RunCLI, stop: Stop) -> None:
    whole = cli("fit", "--model=LeNet5", *SHORT).run
    stop(12, signal.SIGTERM)
    folder = Path(cli("fit", "--model=LeNet5", *SHORT, "--resume=auto").err.split()[-1])
    last, previous = folder / "checkpoints" / "last.ckpt", folder / "checkpoints" / "previous.ckpt"
    assert load_checkpoint(previous)["global_step"] == 8
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 4
    last.write_bytes(content)
    stop(0, signal.SIGTERM)
    named = cli("fit", f"--resume={folder}")
    assert named.code == 1
    assert f"{last} is empty or damaged" in named.err
    outcome = cli("fit", "--model=LeNet5", *SHORT, "--resume=auto")
    assert outcome.code == 0, outcome.err
    assert f"{last} is empty or damaged" in outcome.err
    assert f"Continuing from the previous checkpoint: {previous}" in outcome.err
    assert_same_run(whole, folder)


def test_a_run_without_a_checkpoint_starts_anew_in_its_folder(cli: RunCLI, stop: Stop) -> None:
    whole = cli("fit", "--model=LeNet5", *SHORT).run
    stop(3, signal.SIGTERM)
    folder = Path(cli("fit", "--model=LeNet5", *SHORT, "--resume=auto").err.split()[-1])
    (folder / "checkpoints" / "last.ckpt").unlink()
    stop(0, signal.SIGTERM)
    assert cli("fit", f"--resume={folder}").code == 0
    assert_same_run(whole, folder)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--resume=no/such/run",), "no/such/run is not a run: there is no no/such/run/config.yaml."),
        (("--resume=auto",), "Name a network"),
        (("--model=LeNet5", "--resume=auto", "--ckpt_path=x.ckpt"), "give only one of them"),
    ],
)
def test_what_can_not_be_resumed(cli: RunCLI, args: tuple[str, ...], message: str) -> None:
    outcome = cli("fit", *args)
    assert outcome.code == 1
    assert message in outcome.err


def test_max_steps_is_refused(cli: RunCLI, stop: Stop) -> None:
    stop(3, signal.SIGTERM)
    folder = Path(cli("fit", "--model=LeNet5", *SHORT, "--trainer.max_steps=9").err.split()[-1])
    outcome = cli("fit", f"--resume={folder}")
    assert (outcome.code, "max_steps cannot be resumed exactly" in outcome.err) == (1, True)


def test_plateau_is_refused(cli: RunCLI, stop: Stop) -> None:
    stop(3, signal.SIGTERM)
    folder = Path(cli("fit", "--model=tests.tiny.Plateau", *SHORT).err.split()[-1])
    outcome = cli("fit", f"--resume={folder}")
    assert (outcome.code, "ReduceLROnPlateau cannot be resumed exactly" in outcome.err) == (1, True)


def test_a_schedule_of_another_length_is_refused(cli: RunCLI) -> None:
    run = cli("fit", "--model=tests.tiny.Tiny", "--model.schedule=one_cycle", *SHORT).run
    longer = (*SHORT, "--trainer.max_epochs=3", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}")
    outcome = cli("fit", "--model=tests.tiny.Tiny", *longer)
    assert outcome.code == 1
    assert "The one_cycle schedule of the checkpoint has 16 steps, but this training has 24" in outcome.err


def test_a_run_in_progress_is_left_alone(cli: RunCLI, stop: Stop) -> None:
    stop(3, signal.SIGTERM)
    folder = Path(cli("fit", "--model=LeNet5", *SHORT).err.split()[-1])
    hold = """
import pathlib, sys
from src.runs.folder import Run
with Run(pathlib.Path(sys.argv[1])).locked():
    print("held", flush=True)
    input()
"""
    command = [sys.executable, "-c", hold, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdin
        assert holder.stdout.readline() == "held\n"
        before = (folder / "checkpoints" / "last.ckpt").read_bytes()
        outcome = cli("fit", f"--resume={folder}")
        other = cli("fit", "--model=LeNet5", *SHORT, "--resume=auto")
        holder.stdin.write("\n")
    assert outcome.code == 1
    assert f"Another process is training in {folder}." in outcome.err
    assert other.err.split()[-1].endswith("version_1")  # a run of its own
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize("model", ["LeNet5", "CNN"])
def test_a_loss_that_is_no_number_ends_the_run(cli: RunCLI, model: str) -> None:
    outcome = cli("fit", f"--model={model}", "--model.lr=1e18", *SHORT)
    assert outcome.code == 1
    assert "The loss is NaN or infinite: epoch 1, step 2, learning rate 1e+18." in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("where", ["training_step", "validation_step"])
def test_the_checkpoint_before_a_diverged_loss_is_kept(
    cli: RunCLI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    step: Any = getattr(Classifier, where)
    finished_steps = {"training_step": 11, "validation_step": 16}[where]

    def diverge(self: Classifier, batch: Any, batch_idx: int) -> Any:
        if self.global_step == finished_steps:
            batch = (batch[0] * torch.nan, *batch[1:])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, where, diverge)
    outcome = cli("fit", "--model=LeNet5", *SHORT)
    assert outcome.code == 1
    named_step = {"training_step": 12, "validation_step": 16}[where]
    assert f"The loss is NaN or infinite: epoch 2, step {named_step}, learning rate 0.001." in outcome.err
    kept = load_checkpoint(tmp_path / "lightning_logs" / "lenet5" / "version_0" / "checkpoints" / "last.ckpt")
    assert kept["global_step"] == 8
    assert all(weights.isfinite().all() for weights in kept["state_dict"].values())


# --- Real processes ------------------------------------------------------------------------------------


def test_killed_inside_a_write_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    script = """
import os, signal, sys, torch
from src.runs.checkpoints import CheckedCheckpointIO
path = sys.argv[1]
CheckedCheckpointIO().save_checkpoint({"state_dict": {"w": torch.zeros(100_000)}}, path)
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)  # all is written, nothing renamed
CheckedCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(100_000)}}, path)
"""
    path = tmp_path / "last.ckpt"
    killed = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert not load_checkpoint(path)["state_dict"]["w"].any()
    assert (tmp_path / ".last.ckpt.part").exists()


def test_a_second_signal_ends_at_once() -> None:
    script = """
import os, signal
from src.runs.folder import Run, find_runs
from src.training.stopping import Stopping
stopping = Stopping()
stopping.received = 0
signal.signal(signal.SIGTERM, stopping._receive)
for number in range(1, 3):
    os.kill(os.getpid(), signal.SIGTERM)
    print("after signal", number, flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (143, "after signal 1\n")


def test_full_disk_keeps_the_checkpoint_before(cli: RunCLI, stop: Stop, tmp_path: Path) -> None:
    stop(3, signal.SIGTERM)
    folder = Path(cli("fit", "--model=LeNet5", *SHORT).err.split()[-1])
    last = folder / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    # No file may grow beyond 2 MB: the disk is full in the middle of the next checkpoint.
    fit = f"ulimit -f 2048; exec {sys.executable} -m src fit --resume {folder}"
    failed = subprocess.run(["bash", "-c", fit], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1
    (line,) = [line for line in failed.stderr.splitlines() if "error:" in line]
    assert line.endswith(
        f"Cannot write a checkpoint to {last.parent}: File too large. {last} is the previous checkpoint."
    )
    assert "Traceback" not in failed.stderr
    assert last.read_bytes() == before
    assert {path.name for path in last.parent.iterdir()} <= {"last.ckpt", "previous.ckpt"}


FORK_SERVER = """
import os, sys
from src.cli.main import main
for line in sys.stdin:
    if not (child := os.fork()):
        os._exit(main(line.split()))
    print("started", child, flush=True)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["LeNet5", "CNN"])
def test_killed_at_hundreds_of_random_moments(mnist: Path, tmp_path: Path, model: str) -> None:
    """One process imports everything once, and forks the trainings that are killed."""
    settings = ["fit", f"--model={model}", *SHORT, f"--data.data_dir={mnist}", "--save_every_n_steps=1"]
    runs = tmp_path / "killed" / "lightning_logs" / model.lower()
    settings += ["--resume=auto", "--trainer.enable_progress_bar=false", "--trainer.default_root_dir"]
    moments = random.Random(0)
    kills = compared = 0
    log = (tmp_path / "log").open("w")
    command = [sys.executable, "-c", FORK_SERVER]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as server:
        assert server.stdin and server.stdout
        requests, answers = server.stdin, server.stdout

        def answer(word: str) -> int:
            while not (line := answers.readline()).startswith(word):
                assert line, (tmp_path / "log").read_text()
            return int(line.split()[1])

        def fit(folder: str, seconds: float | None = None) -> int:
            print(*settings, tmp_path / folder, file=requests, flush=True)
            child = answer("started")
            if seconds is not None:
                time.sleep(seconds)
                with suppress(ProcessLookupError):  # it has finished
                    os.kill(child, signal.SIGKILL)
            return answer("ended")

        started = time.perf_counter()
        assert fit("whole") == 0
        seconds = time.perf_counter() - started
        while kills < 150:
            killed = fit("killed", moments.uniform(0, seconds)) == -signal.SIGKILL
            kills += killed
            seconds *= 1.05 if killed else 0.9  # so that a third comes too late, however busy the machine
            for run in find_runs(runs):
                if run.checkpoint.exists():
                    load_checkpoint(run.checkpoint)
                if run.is_finished:
                    assert_same_run(tmp_path / "whole" / "lightning_logs" / model.lower() / "version_0", run.folder)
                    run.folder.rename(tmp_path / f"compared_{compared}")
                    compared += 1
        requests.close()
    print(f"{kills} kills, {compared} runs finished identically")
    assert compared > 10


@pytest.mark.slow
@hypothesis_settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    stops=st.lists(st.integers(1, 15), max_size=6),
    save_every=st.integers(0, 4),
    batches=st.integers(2, 5),
    validations=st.sampled_from(["1.0", "0.5"]),
    accumulate=st.integers(1, 2),
    schedule=st.sampled_from(["constant", "one_cycle"]),
    max_shift=st.integers(0, 1),
)
def test_any_sequence_of_stops(
    cli: RunCLI,
    stop: Stop,
    stops: list[int],
    save_every: int,
    batches: int,
    validations: str,
    accumulate: int,
    schedule: str,
    max_shift: int,
) -> None:
    command = (
        "fit",
        "--model=tests.tiny.Tiny",
        "--model.dropout=0.5",
        f"--model.schedule={schedule}",
        f"--data.max_shift={max_shift}",
        "--trainer.max_epochs=3",
        f"--trainer.limit_train_batches={batches}",
        f"--trainer.val_check_interval={validations}",
        f"--trainer.accumulate_grad_batches={accumulate}",
        "--trainer.limit_val_batches=2",
        "--trainer.limit_test_batches=2",
        f"--save_every_n_steps={save_every}",
        "--trainer.enable_progress_bar=false",
    )
    stop(-1, signal.SIGTERM)
    whole = cli(*command).run
    for step in stops:
        stop(step, signal.SIGTERM)
        if (outcome := cli(*command, "--resume=auto")).code == 0:
            break
        assert outcome.code == 143, outcome.err
    else:
        stop(-1, signal.SIGTERM)
        outcome = cli(*command, "--resume=auto")
        assert outcome.code == 0, outcome.err
    assert_same_run(whole, outcome.run)


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
    settings = ("fit", "--model=CNN", *SHORT, "--trainer.limit_train_batches=40", *processes(2), "--resume=auto")
    settings += ("--save_every_n_steps=7",)
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
