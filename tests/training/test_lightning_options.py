"""Options and callbacks of Lightning's Trainer: they work, or they are refused in a line."""

import json
from pathlib import Path
from typing import Any

import pytest

from src.runs.checkpoints import load_checkpoint
from tests.conftest import RunCLI

SHORT = (
    "--trainer.max_epochs=3",
    "--trainer.limit_train_batches=4",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=2",
)


def results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


@pytest.mark.parametrize(
    ("options", "steps", "stopped_early"),
    [
        (("--trainer.check_val_every_n_epoch=2",), 12, False),
        (("--trainer.check_val_every_n_epoch=5",), 12, False),
        (("--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=3"), 12, False),
        (("--trainer.val_check_interval=0.5",), 12, False),
        (("--trainer.limit_val_batches=0",), 12, False),
        (("--trainer.accumulate_grad_batches=2",), 6, False),
        (("--trainer.max_steps=6",), 6, True),
        (("--trainer.max_epochs=-1", "--trainer.max_steps=6"), 6, True),
        (("--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val_loss",
          "--trainer.callbacks.stopping_threshold=9"), 4, True),
        (("--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.5"), 12, False),
        (("--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.monitor=val_loss"), 12, False),
        (("--trainer.callbacks=LearningRateMonitor",), 12, False),
    ],
)  # fmt: skip
def test_last_checkpoint_and_results_are_those_of_the_last_step(
    cli: RunCLI, options: tuple[str, ...], steps: int, stopped_early: bool
) -> None:
    run = cli("fit", "--model=tests.tiny.Tiny", *SHORT, *options).run
    found = results(run)
    assert (found["steps"], found["stopped_early"]) == (steps, stopped_early)
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert load_checkpoint(checkpoint)["global_step"] == steps
    tested = cli("test", f"--ckpt_path={checkpoint}", "--trainer.limit_test_batches=2")
    assert f"({found['test']['errors']:,} errors in {found['test']['images']:,} images)" in tested.out, tested.err


def test_max_time_ends_the_training(cli: RunCLI) -> None:
    settings = ("--trainer.max_epochs=1000", "--trainer.max_time=00:00:00:03", "--trainer.limit_val_batches=2")
    outcome = cli("fit", "--model=tests.tiny.Tiny", *settings, "--trainer.limit_test_batches=2")
    assert outcome.code == 0, outcome.err
    found = results(outcome.run)
    assert found["stopped_early"] and found["train_seconds"] < 30
    assert load_checkpoint(outcome.run / "checkpoints" / "last.ckpt")["global_step"] == found["steps"]
    assert "stopped early after step" in outcome.out


def test_a_training_without_a_test_says_where_its_weights_are(cli: RunCLI, tmp_path: Path) -> None:
    outcome = cli("fit", "--model=tests.tiny.Tiny", *SHORT, "--trainer.limit_test_batches=0")
    assert outcome.code == 0, outcome.err
    weights = tmp_path / "lightning_logs" / "tiny" / "version_0" / "checkpoints" / "last.ckpt"
    assert outcome.out.rstrip().endswith(f"Weights: {weights}") and weights.is_file()


def test_without_a_logger_nothing_is_written_but_weights(cli: RunCLI, tmp_path: Path) -> None:
    for _ in range(2):
        assert cli("fit", "--model=tests.tiny.Tiny", *SHORT, "--trainer.logger=false").code == 0
    assert not list(tmp_path.rglob("config.yaml"))
    assert cli("fit", "--model=tests.tiny.Tiny", *SHORT, "--trainer.barebones=true").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--trainer.callbacks=LearningRateFinder", "LearningRateFinder is not supported"),
        ("--trainer.callbacks=BatchSizeFinder", "BatchSizeFinder is not supported"),
        ("--trainer.callbacks=StochasticWeightAveraging --trainer.callbacks.swa_lrs=0.1", "Use EMAWeightAveraging"),
        ("--trainer.callbacks=ModelCheckpoint --trainer.callbacks.save_last=true", "choose another filename"),
        ("--trainer.strategy=fsdp", "it splits the weights"),
        ("--trainer.strategy=deepspeed", "it splits the weights"),
        ("--trainer.strategy=ddp_spawn", "its processes end after the training"),
        ("--trainer.precision=16-true", "Use 16-mixed or bf16-mixed"),
        ("--trainer.limit_train_batches=0", "there is nothing to fit"),
        ("--trainer.max_steps=0", "--trainer.max_steps or --trainer.max_time is 0"),
        ("--trainer.max_epochs=-1", "--trainer.max_epochs is -1"),
        ("--trainer.callbacks=EarlyStopping --trainer.callbacks.monitor=no_such_metric", "no_such_metric"),
        ("--trainer.logger=WandbLogger", "wandb"),
    ],
)
def test_what_cannot_give_a_correct_run_is_refused(cli: RunCLI, options: str, message: str) -> None:
    outcome = cli("fit", "--model=tests.tiny.Tiny", *SHORT, *options.split())
    assert outcome.code in (1, 2)
    assert message in outcome.err
    assert "Traceback" not in outcome.err
