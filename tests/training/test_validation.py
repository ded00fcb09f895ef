"""Trainings that validate in some epochs, in none, or several times in one."""

import json
import signal
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.comparison.groups import find_groups
from src.runs.checkpoints import load_checkpoint
from tests.conftest import CURVES_ALONE, RunCLI
from tests.training.conftest import Stop, assert_same_run, curves

LIMITS = ("--data.batch_size=32", "--trainer.limit_train_batches=4", "--trainer.limit_val_batches=2")
QUICK = ("fit", "--model=tests.tiny.Tiny", *LIMITS, CURVES_ALONE, "--trainer.limit_test_batches=2")


def points(run: Path, sub_run: str) -> list[int]:
    """The steps of a curve in TensorBoard, in the order in which they were written."""
    if not (run / sub_run).exists():
        return []
    return [event.step for event in EventAccumulator(str(run / sub_run)).Reload().Scalars("curves/loss")]


@pytest.mark.parametrize(
    ("settings", "epochs", "validated"),
    [
        ("--trainer.check_val_every_n_epoch=2 --trainer.max_epochs=3", 3, [2]),
        ("--trainer.check_val_every_n_epoch=5 --trainer.max_epochs=1", 1, []),
        ("--trainer.limit_val_batches=0 --trainer.max_epochs=2", 2, []),
        ("--trainer.val_check_interval=0.5 --trainer.max_epochs=2", 2, [1, 2]),
        ("--trainer.check_val_every_n_epoch=null --trainer.val_check_interval=6 --trainer.max_epochs=3", 3, [2, 3]),
        ("--trainer.max_epochs=-1 --trainer.max_steps=6", 2, [1]),
        ("--trainer.max_epochs=null --trainer.max_steps=8", 2, [1, 2]),
    ],
)
def test_the_last_weights_are_saved_and_each_validated_epoch_has_one_point(
    cli: RunCLI, settings: str, epochs: int, validated: list[int]
) -> None:
    outcome = cli(*QUICK, *settings.split())
    assert outcome.code == 0, outcome.err
    run = outcome.run
    checkpoint = load_checkpoint(run / "checkpoints" / "last.ckpt")
    steps = 6 if "max_steps=6" in settings else 4 * epochs
    assert (checkpoint["epoch"] + 1, checkpoint["global_step"]) == (epochs, steps)
    results = json.loads((run / "results.json").read_text())
    assert results["epochs"] == epochs
    assert list(map(int, results["curves"]["loss"]["validation"])) == points(run, "validation") == validated
    assert points(run, "train") == list(range(1, epochs + 1))
    groups, left_out = find_groups([run])
    assert ([group.name for group in groups], left_out) == (["Tiny"], {})
    tested = cli("test", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}", "--data.batch_size=32", QUICK[-1])
    assert f"({results['test']['errors']:,} errors in {results['test']['images']:,} images)" in tested.out


def test_the_last_validation_of_an_epoch_is_its_point(cli: RunCLI) -> None:
    twice = cli(*QUICK, "--trainer.max_epochs=2", "--trainer.val_check_interval=2").run
    once = cli(*QUICK, "--trainer.max_epochs=2").run
    for tag in ("loss", "accuracy"):
        assert curves(twice)[tag]["validation"] == curves(once)[tag]["validation"]
        written = [EventAccumulator(str(run / "validation")).Reload().Scalars(f"curves/{tag}") for run in (twice, once)]
        assert [event.value for event in written[0]] == [event.value for event in written[1]]


@pytest.mark.parametrize("settings", ["check_val_every_n_epoch=2", "limit_val_batches=0", "val_check_interval=0.5"])
def test_resumed_with_and_without_validation(cli: RunCLI, stop: Stop, settings: str) -> None:
    command = (*QUICK, "--trainer.max_epochs=3", f"--trainer.{settings}")
    whole = cli(*command).run
    for version, step in enumerate((2, 4, 6, 9), start=1):
        stop(step, signal.SIGTERM)
        assert cli(*command, "--resume=auto").code == 128 + signal.SIGTERM
        stop(0, signal.SIGTERM)
        resumed = cli(*command, "--resume=auto")
        assert (resumed.code, resumed.run) == (0, whole.with_name(f"version_{version}")), resumed.err
        assert_same_run(whole, resumed.run)
        for name in ("train", "validation"):
            assert points(resumed.run, name) == points(whole, name)
