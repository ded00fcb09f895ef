"""A training that is stopped goes on in its folder and ends as if nothing had happened."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from lightning import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.runs.checkpoints import load_checkpoint
from src.runs.folder import Run
from src.training import stopping
from src.training.stopping import Stopping
from tests.conftest import CURVES_ALONE, RunCLI
from tests.forks import Fork
from tests.training.conftest import SHORT, SHORT_WITH_TABS, Stop, assert_same_run, curves


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("LeNet5", (*SHORT, "--model.schedule=one_cycle", "--model.betas=[0.9, 0.99]", "--data.max_shift=2")),
        ("CNN", (*SHORT_WITH_TABS, "--model.label_smoothing=0.1", "--data.max_rotation=10", "--data.elastic=1")),
    ],
)
def test_stopped_five_times(cli: RunCLI, stop: Stop, model: str, settings: tuple[str, ...]) -> None:
    command = ("fit", f"--model={model}", *settings)
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
        assert [(str(event.step), event.value) for event in events.Scalars("curves/loss")] == [
            (epoch, pytest.approx(value)) for epoch, value in points.items()
        ]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["version_0", "version_1"]

    again = cli("fit", f"--resume={folder}")
    assert again.code == 0
    assert f"{folder} is finished: {model}: test accuracy" in again.out
    (folder / "results.json").write_text("{}")
    damaged = cli("fit", f"--resume={folder}")
    assert (damaged.code, damaged.err[:7]) == (1, "error: ")
    assert f"{folder / 'results.json'} is damaged" in damaged.err


def test_stopped_between_training_and_test(cli: RunCLI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_train_end: Any = Stopping.on_train_end

    def stop(self: Stopping, *args: Any) -> None:
        on_train_end(self, *args)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Stopping, "on_train_end", stop)
    outcome = cli("fit", "--model=LeNet5", *SHORT)
    assert outcome.code == 143
    folder = tmp_path / "lightning_logs" / "lenet5" / "version_0"
    assert f"Stopped in epoch 2, after step 16. Go on with: python -m src fit --resume {folder}" in outcome.err
    monkeypatch.setattr(Stopping, "on_train_end", on_train_end)
    assert cli("fit", f"--resume={folder}").code == 0
    assert Run(folder).is_finished


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


def test_saves_inside_an_epoch_by_the_clock(cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 25 seconds, on a clock of its own."""
    saved: list[int] = []
    now = 0.0
    save: Any = Trainer.save_checkpoint

    def record(self: Trainer, path: Path, *args: Any, **kwargs: Any) -> None:
        saved.append(self.global_step)
        save(self, path, *args, **kwargs)

    def on_train_batch_start(self: Stopping, trainer: Trainer, *args: Any) -> None:
        nonlocal now
        now = 25.0 * (trainer.global_step + 1)

    monkeypatch.setattr(Trainer, "save_checkpoint", record)
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(Stopping, "on_train_batch_start", on_train_batch_start)
    assert cli("fit", "--model=LeNet5", *SHORT, "--save_every_n_minutes=1").code == 0
    assert saved == [3, 6, 8, 9, 12, 15, 16]  # 8 and 16: the epochs end


def test_a_closed_terminal_stops_a_training_but_not_under_nohup(cli: RunCLI, stop: Stop) -> None:
    stop(3, signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    try:
        stopped = cli("fit", "--model=tests.tiny.Tiny", *SHORT)
        assert stopped.code == 129 and "after step 3. Go on with" in stopped.err
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert cli("fit", "--model=tests.tiny.Tiny", *SHORT).code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_without_checkpoints_nothing_is_saved_and_a_line_says_so(cli: RunCLI, stop: Stop) -> None:
    stop(3, signal.SIGINT)
    outcome = cli("fit", "--model=tests.tiny.Tiny", *SHORT, "--trainer.enable_checkpointing=false")
    assert outcome.code == 130
    assert "after step 3. Nothing was saved." in outcome.err


def test_auto_takes_the_newest_of_several_runs(cli: RunCLI, stop: Stop, tmp_path: Path) -> None:
    command = ("fit", "--model=tests.tiny.Tiny", *SHORT)
    stop(3, signal.SIGTERM)
    assert cli(*command).code == 143
    runs = tmp_path / "lightning_logs" / "tiny"
    for number in (2, 10):
        shutil.copytree(runs / "version_0", runs / f"version_{number}")
    stop(-1, signal.SIGTERM)
    assert cli(*command, "--resume=auto").run == runs / "version_10"


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


@pytest.mark.parametrize("resume", ["named", "auto"])
def test_the_checkpoint_before_a_damaged_one_is_taken_with_a_line(cli: RunCLI, stop: Stop, resume: str) -> None:
    settings = ("--model=LeNet5", *SHORT) if resume == "auto" else ()
    whole = cli("fit", "--model=LeNet5", *SHORT).run
    stop(12, signal.SIGTERM)
    folder = Path(cli("fit", "--model=LeNet5", *SHORT, "--resume=auto").err.split()[-1])
    last, previous = folder / "checkpoints" / "last.ckpt", folder / "checkpoints" / "previous.ckpt"
    assert load_checkpoint(previous)["global_step"] == 8
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 4
    last.write_bytes(content)
    stop(0, signal.SIGTERM)
    outcome = cli("fit", f"--resume={folder}" if resume == "named" else "--resume=auto", *settings)
    assert outcome.code == 0, outcome.err
    assert f"{last} is empty or damaged" in outcome.err
    assert f"Continuing from the previous checkpoint: {previous}" in outcome.err
    assert_same_run(whole, folder)
    (folder / "results.json").unlink()
    previous.unlink()
    last.write_bytes(content)
    assert f"{last} is empty or damaged" in cli("fit", "--model=LeNet5", *SHORT, "--resume=auto").err


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


def test_stopped_with_max_steps(cli: RunCLI, stop: Stop) -> None:
    """Inside an epoch, at its end, and after the last step, which is inside the second epoch."""
    limits = (*SHORT, "--trainer.max_steps=11", "--trainer.max_epochs=-1")
    command = ("fit", "--model=tests.tiny.Tiny", "--model.dropout=0.5", "--model.schedule=one_cycle", *limits)
    whole = cli(*command).run
    for step in (3, 8, 11):
        stop(step, signal.SIGTERM)
        outcome = cli(*command, "--resume=auto")
        assert f"after step {step}. Go on with: python -m src fit --config" in outcome.err
    stop(-1, signal.SIGTERM)
    go_on = outcome.err.partition("python -m src ")[2].split()
    resumed = cli(*go_on)
    assert resumed.code == 0, resumed.err
    assert_same_run(whole, resumed.run)
    first, second = (json.loads((run / "results.json").read_text()) for run in (whole, resumed.run))
    assert all(first[name] == second[name] for name in ("epochs", "steps", "stopped_early"))


def test_plateau_is_refused(cli: RunCLI, stop: Stop, tmp_path: Path) -> None:
    stop(3, signal.SIGTERM)
    command = ("fit", "--model=tests.tiny.Plateau", *SHORT)
    stopped = cli(*command)
    assert "after step 3, saved in" in stopped.err and "ReduceLROnPlateau cannot be resumed" in stopped.err
    for option in ("--resume=auto", f"--ckpt_path={next(tmp_path.rglob('last.ckpt'))}"):
        outcome = cli(*command, option)
        assert (outcome.code, "ReduceLROnPlateau cannot be resumed exactly" in outcome.err) == (1, True)


@pytest.mark.parametrize(
    "schedule", ["--model.schedule=one_cycle", "--optimizer=AdamW --lr_scheduler=OneCycleLR --lr_scheduler.max_lr=0.1"]
)
def test_a_schedule_goes_on_unless_the_training_has_another_length(cli: RunCLI, stop: Stop, schedule: str) -> None:
    command = ("fit", "--model=tests.tiny.Tiny", *schedule.split(), *SHORT)
    whole = cli(*command).run
    stop(11, signal.SIGTERM)
    assert cli(*command).code == 143
    stop(-1, signal.SIGTERM)
    assert_same_run(whole, cli(*command, "--resume=auto").run)
    outcome = cli(*command, "--trainer.max_epochs=3", f"--ckpt_path={whole / 'checkpoints' / 'last.ckpt'}")
    assert outcome.code == 1
    assert "The learning rate schedule of the checkpoint has 16 steps, but that of this training has 24" in outcome.err


def hold(folder: str) -> None:
    with Run(Path(folder)).locked():
        Path(folder, "held").touch()
        time.sleep(300)


@pytest.mark.parametrize("resume", ["named", "auto"])
def test_a_run_in_progress_is_left_alone(cli: RunCLI, stop: Stop, tmp_path: Path, resume: str) -> None:
    stop(3, signal.SIGTERM)
    folder = Path(cli("fit", "--model=LeNet5", *SHORT).err.split()[-1])
    holder = Fork(tmp_path, str(folder), function=hold)
    holder.wait_until((folder / "held").exists)
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    settings = ("--model=LeNet5", *SHORT, "--resume=auto") if resume == "auto" else (f"--resume={folder}",)
    outcome = cli("fit", *settings)
    holder.kill()
    assert outcome.code == 1
    assert f"Another process is training in {folder}." in outcome.err
    assert not folder.with_name("version_1").exists()
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before


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
    max_steps=st.sampled_from([-1, 7]),
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
    max_steps: int,
) -> None:
    command = (
        "fit",
        "--model=tests.tiny.Tiny",
        "--model.dropout=0.5",
        f"--model.schedule={schedule}",
        f"--data.max_shift={max_shift}",
        "--trainer.max_epochs=3",
        f"--trainer.max_steps={max_steps}",
        f"--trainer.limit_train_batches={batches}",
        f"--trainer.val_check_interval={validations}",
        f"--trainer.accumulate_grad_batches={accumulate}",
        "--trainer.limit_val_batches=2",
        "--trainer.limit_test_batches=2",
        f"--save_every_n_steps={save_every}",
        "--trainer.enable_progress_bar=false",
        CURVES_ALONE,
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
