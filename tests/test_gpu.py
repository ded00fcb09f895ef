"""What only a GPU can show: `python -m pytest -m gpu`.

Without CUDA they are deselected. ACCELERATOR=cpu in the environment runs them there, to try everything but the device.
"""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile

from src.runs.checkpoints import load_checkpoint
from tests.conftest import CURVES_ALONE, ROOT, RunCLI
from tests.training.conftest import assert_identical

pytestmark = pytest.mark.gpu
ACCELERATOR = os.environ.get("ACCELERATOR", "gpu")
ON_DEVICE = (f"--trainer.accelerator={ACCELERATOR}", "--trainer.devices=1", CURVES_ALONE)
SHORT = (*ON_DEVICE, "--trainer.max_epochs=2", "--trainer.limit_train_batches=20", "--trainer.limit_val_batches=2")


def accuracy(run: Path) -> float:
    return json.loads((run / "results.json").read_text())["test"]["accuracy"]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("network", ["lenet5", "cnn"])
def test_one_epoch(cli: RunCLI, network: str, precision: str) -> None:
    settings = ("--trainer.max_epochs=1", f"--trainer.precision={precision}")
    outcome = cli("fit", f"--config=configs/{network}.yaml", *ON_DEVICE, *settings)
    assert outcome.code == 0, outcome.err
    assert accuracy(outcome.run) > 0.97
    weights = load_checkpoint(outcome.run / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(weight.dtype == torch.float32 for weight in weights.values())


class Batches(Callback):
    """Keeps the labels of each batch, the sum of its pixels, and how many large tensors lie on its device."""

    seen: list[tuple[list[int], float]] = []
    sets: set[int] = set()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        x_NCHW, labels_N = batch
        self.seen.append((labels_N.tolist(), x_NCHW.double().sum().item()))
        assert x_NCHW.device == pl_module.device

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        gc.collect()
        tensors = [one for one in gc.get_objects() if torch.is_tensor(one) and one.device == pl_module.device]
        self.sets.update(one.data_ptr() for one in tensors if one.dtype == torch.uint8 and len(one) >= 10_000)


def test_same_batches_as_on_the_cpu_from_images_that_are_there_once(
    cli: RunCLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    distorted = ("--data.max_shift=2", "--data.max_rotation=9", "--data.elastic=0.4")
    of_device = []
    for accelerator in (ACCELERATOR, "cpu"):
        monkeypatch.setattr(Batches, "seen", [])
        monkeypatch.setattr(Batches, "sets", set())
        callback = "--trainer.callbacks+=tests.test_gpu.Batches"
        where = f"--trainer.accelerator={accelerator}"
        outcome = cli("fit", "--model=LeNet5", *SHORT, where, callback, *distorted)
        assert outcome.code == 0, outcome.err
        if accelerator == ACCELERATOR:
            assert len(Batches.sets) == 2  # training and test images
        of_device.append(Batches.seen)
    ours, on_cpu = of_device
    assert [labels for labels, _ in ours] == [labels for labels, _ in on_cpu] and len(ours) == 40
    torch.testing.assert_close(*(torch.tensor([total for _, total in seen]) for seen in of_device), rtol=1e-4, atol=1)


@pytest.mark.parametrize("network", ["lenet5", "cnn"])
def test_stopped_and_resumed_is_not_stopped(cli: RunCLI, network: str) -> None:
    """Bit for bit, with dropout: between two epochs and inside of one."""
    every_15_steps = ("ModelCheckpoint", "every_n_train_steps=15", "save_top_k=-1", "filename={step}")
    saving = [f"--trainer.callbacks{'.' if '=' in one else '+='}{one}" for one in every_15_steps]
    settings = ("fit", f"--config=configs/{network}.yaml", *SHORT, *saving, "--trainer.deterministic=true")
    whole = cli(*settings).run / "checkpoints"
    for step in (15, 30):
        resumed = cli(*settings, f"--ckpt_path={whole / f'step={step}.ckpt'}").run / "checkpoints"
        assert_identical(whole / "last.ckpt", resumed / "last.ckpt")


@pytest.mark.parametrize("network", ["lenet5", "cnn"])
def test_a_checkpoint_gives_the_same_loss_on_the_other_device(
    cli: RunCLI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, network: str
) -> None:
    monkeypatch.setenv("RECORD", str(tmp_path))
    for trained_on in (ACCELERATOR, "cpu"):
        run = cli("fit", f"--config=configs/{network}.yaml", *SHORT, f"--trainer.accelerator={trained_on}").run
        losses = []
        for tested_on in (ACCELERATOR, "cpu"):
            where = (f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}", f"--trainer.accelerator={tested_on}")
            assert cli("test", *where, "--trainer.devices=1", "--trainer.callbacks+=tests.recorder.Recorder").code == 0
            losses.append(json.loads((tmp_path / "rank_0.json").read_text())["test_loss"])
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_compiled(cli: RunCLI) -> None:
    outcome = cli("fit", "--model=LeNet5", "--model.compile=true", *SHORT)
    assert outcome.code == 0, outcome.err
    assert accuracy(outcome.run) > 0.5


def test_ddp_with_one_device_is_a_training_without(cli: RunCLI) -> None:
    settings = ("fit", "--model=LeNet5", *SHORT, "--trainer.deterministic=true")
    alone = cli(*settings).run / "checkpoints" / "last.ckpt"
    ddp = cli(*settings, "--trainer.strategy=ddp").run / "checkpoints" / "last.ckpt"
    one, other = (load_checkpoint(path)["state_dict"] for path in (alone, ddp))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.skipif(ACCELERATOR == "cpu", reason="a CPU has room for two processes")
@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_more_processes_than_gpus_are_refused(tmp_path: Path, backend: str) -> None:
    count = torch.cuda.device_count() + 1
    strategy = '{"class_path": "DDPStrategy", "init_args": {"process_group_backend": "BACKEND"}}'.replace(
        "BACKEND", backend
    )
    settings = ("--trainer.accelerator=gpu", f"--trainer.devices={count}", f"--trainer.strategy={strategy}")
    command = [sys.executable, "-m", "src", "fit", "--model=LeNet5", *SHORT, *settings]
    command += [f"--trainer.default_root_dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
    assert "error: " in done.stderr and not list(tmp_path.rglob("version_*"))


class Profiled(Callback):
    """Profiles 20 steps, from the 21st on."""

    counts: dict[str, int] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 20:
            self.profile = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
            self.profile.start()
        elif trainer.global_step == 40:
            self.profile.stop()
            Profiled.counts = {one.key: one.count for one in self.profile.key_averages()}


@pytest.mark.parametrize("options", [(), ("--model.schedule=one_cycle", "--data.max_shift=1", "--data.elastic=1")])
@pytest.mark.parametrize("network", ["lenet5", "cnn"])
def test_20_steps_wait_for_the_gpu_once(cli: RunCLI, network: str, options: tuple[str, ...]) -> None:
    """One of 20 steps checks the loss."""
    callback = "--trainer.callbacks+=tests.test_gpu.Profiled"
    settings = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=60", "--trainer.limit_val_batches=1")
    outcome = cli("fit", f"--config=configs/{network}.yaml", *ON_DEVICE, *settings, callback, *options)
    assert outcome.code == 0, outcome.err
    assert Profiled.counts["Optimizer.step#Adam.step"] == 20
    assert ("cudaLaunchKernel" in Profiled.counts) == (ACCELERATOR == "gpu")
    assert Profiled.counts.get("cudaStreamSynchronize", 0) <= 1
