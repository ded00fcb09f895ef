"""A training that is resumed from a checkpoint goes on as if it had not been cut, bit for bit."""

import json
from pathlib import Path

import pytest

from tests.conftest import RunCLI
from tests.training.conftest import SHORT, assert_identical
from tests.training.test_distributed import finish, processes, run

EVERY_3_STEPS = (
    "--trainer.callbacks+=ModelCheckpoint",
    "--trainer.callbacks.every_n_train_steps=3",
    "--trainer.callbacks.save_top_k=-1",
    "--trainer.callbacks.filename={step}",
)


def last_epoch(run: Path, epoch: int) -> dict[str, float]:
    curves = json.loads((run / "results.json").read_text())["curves"]
    tags = ("accuracy", "loss")
    return {f"{name} {tag}": curves[tag][name][str(epoch)] for tag in tags for name in ("train", "validation")}


@pytest.mark.parametrize("model", ["LeNet5", "CNN"])
def test_resumed_between_epochs(cli: RunCLI, model: str) -> None:
    whole = cli("fit", f"--model={model}", *SHORT, "--trainer.max_epochs=3").run
    cut = cli("fit", f"--model={model}", *SHORT, "--trainer.max_epochs=1").run
    checkpoint = f"--ckpt_path={cut / 'checkpoints' / 'last.ckpt'}"
    resumed = cli("fit", f"--model={model}", *SHORT, "--trainer.max_epochs=3", checkpoint).run
    assert_identical(whole / "checkpoints" / "last.ckpt", resumed / "checkpoints" / "last.ckpt")
    assert last_epoch(whole, 3) == last_epoch(resumed, 3)


@pytest.mark.parametrize(("model", "steps"), [("LeNet5", (12,)), ("CNN", (3, 6, 9))])
def test_resumed_inside_an_epoch(cli: RunCLI, model: str, steps: tuple[int, ...]) -> None:
    settings = ("fit", f"--model={model}", *SHORT, *EVERY_3_STEPS)
    whole = cli(*settings).run
    for step in steps:
        resumed = cli(*settings, f"--ckpt_path={whole / 'checkpoints' / f'step={step}.ckpt'}").run
        assert_identical(whole / "checkpoints" / "step=15.ckpt", resumed / "checkpoints" / "step=15.ckpt")
        assert last_epoch(whole, 2) == last_epoch(resumed, 2)
    other = cli(*settings, "--data.batch_size=16", f"--ckpt_path={whole / 'checkpoints' / f'step={steps[0]}.ckpt'}")
    assert (other.code, other.out.count("lightning_logs")) == (1, 0)
    assert "so batch_size cannot be 16. Use its batch size" in other.err


@pytest.mark.slow
def test_resumed_on_two_devices(tmp_path: Path) -> None:
    settings = ("fit", "--model=CNN", *SHORT, *EVERY_3_STEPS, *processes(2))
    settings += (f"--trainer.default_root_dir={tmp_path}",)
    runs = tmp_path / "lightning_logs" / "cnn"
    finish(run(tmp_path, *settings))
    for version, step in enumerate((6, 9), start=1):
        finish(run(tmp_path, *settings, f"--ckpt_path={runs / 'version_0' / 'checkpoints' / f'step={step}.ckpt'}"))
        whole, resumed = runs / "version_0", runs / f"version_{version}"
        assert_identical(whole / "checkpoints" / "step=15.ckpt", resumed / "checkpoints" / "step=15.ckpt")
        assert last_epoch(whole, 2) == last_epoch(resumed, 2)
