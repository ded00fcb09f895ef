"""Lightning's own options and callbacks, as docs/lightning.md lists them: each works, or is refused in a line."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.data.source import read_mnist
from src.runs.checkpoints import load_checkpoint
from src.runs.network import TrainedNetwork
from tests.conftest import CURVES_ALONE, ROOT, RunCLI, train
from tests.training.conftest import Stop, assert_same_run

FIT = (
    "--model=tests.tiny.Tiny",
    "--data.batch_size=32",
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=4",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=4",
    "--trainer.enable_model_summary=false",
    CURVES_ALONE,
)
NO_BAR = "--trainer.enable_progress_bar=false"
EARLY = (
    "--trainer.callbacks=EarlyStopping",
    "--trainer.callbacks.monitor=val_loss",
    "--trainer.callbacks.stopping_threshold=100",
    "--trainer.max_epochs=4",
)
EMA = ("--trainer.callbacks=EMAWeightAveraging", "--trainer.callbacks.decay=0.5")
EVERY_3 = ("--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=3")
SCHEDULER = ("--trainer.callbacks=GradientAccumulationScheduler", '--trainer.callbacks.scheduling={"1": 2}')
OWN_CHECKPOINT = ("--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.filename=mine")


@pytest.fixture(scope="module")
def plain_run(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of four steps, without any other option."""
    folder = tmp_path_factory.mktemp("plain")
    train(folder, *FIT, NO_BAR)
    return folder / "lightning_logs" / "tiny" / "version_0"


def read_results(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]


def errors_of(checkpoint: Path, mnist: Path) -> int:
    """Errors in the first 128 test images, by an evaluation of our own in 32 bits."""
    images_NHW, labels_N = read_mnist(mnist, "t10k")
    (probabilities_NK,) = TrainedNetwork(checkpoint).probabilities(images_NHW[:128])
    return int((probabilities_NK.argmax(1) != labels_N[:128]).sum())


def scalars(folder: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize(
    ("options", "epochs", "steps", "validated", "stopped_early"),
    [
        (("--trainer.overfit_batches=3",), 2, 6, [1, 2], False),
        (("--trainer.limit_train_batches=1",), 2, 2, [1, 2], False),  # not all of them
        (("--trainer.limit_train_batches=0.002",), 2, 6, [1, 2], False),  # of 1,875
        (("--trainer.limit_val_batches=0",), 2, 8, [], False),
        (("--trainer.max_steps=5",), 2, 5, [1], True),
        (("--trainer.max_steps=5", "--trainer.max_epochs=-1"), 2, 5, [1], True),
        (EARLY, 1, 4, [1], True),
        ((*EARLY, "--trainer.min_epochs=3"), 3, 12, [1, 2, 3], True),
        (("--trainer.min_epochs=3",), 2, 8, [1, 2], False),  # max_epochs counts
        (("--trainer.val_check_interval=0.5",), 2, 8, [1, 2], False),
        (("--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=3"), 3, 12, [2], False),
        (EVERY_3, 2, 8, [1, 2], False),
        (("--trainer.accumulate_grad_batches=3",), 2, 4, [1, 2], False),
        (SCHEDULER, 2, 6, [1, 2], False),
        (("--trainer.gradient_clip_val=0.1",), 2, 8, [1, 2], False),
        (("--trainer.precision=16-mixed", "--trainer.gradient_clip_val=0.1"), 2, 8, [1, 2], False),
        (("--trainer.precision=bf16-mixed",), 2, 8, [1, 2], False),
        (("--trainer.precision=bf16-true",), 2, 8, [1, 2], False),
        (("--trainer.precision=64-true",), 2, 8, [1, 2], False),
        (EMA, 2, 8, [1, 2], False),
    ],
)
def test_results_are_those_of_the_last_checkpoint(
    cli: RunCLI,
    mnist: Path,
    plain_run: Path,
    options: tuple[str, ...],
    epochs: int,
    steps: int,
    validated: list[int],
    stopped_early: bool,
) -> None:
    outcome = cli("fit", *FIT, NO_BAR, *options)
    assert outcome.code == 0, outcome.err
    results, checkpoint = read_results(outcome.run), outcome.run / "checkpoints" / "last.ckpt"
    assert (results["epochs"], results["steps"], results["stopped_early"]) == (epochs, steps, stopped_early)
    assert ("stopped early after step" in outcome.out) == stopped_early
    assert ("details/stopped_early_after_step" in scalars(outcome.run / "test")) == stopped_early
    assert load_checkpoint(checkpoint)["global_step"] == steps
    assert sorted(map(int, results["curves"]["loss"]["validation"])) == validated
    rounding = 3 if "16-" in options[0] else 0
    assert results["test"]["errors"] == pytest.approx(errors_of(checkpoint, mnist), abs=rounding)
    if options[0].startswith(("--trainer.gradient", "--trainer.precision", "--trainer.callbacks=EMA")):
        assert any((weights(plain_run)[name] != value).any() for name, value in weights(outcome.run).items())


@pytest.mark.parametrize(
    "options",
    [
        ("--trainer.deterministic=true", "--trainer.detect_anomaly=true", "--trainer.devices=auto"),
        ("--trainer.profiler=simple", "--trainer.callbacks=OnExceptionCheckpoint", "--trainer.callbacks.dirpath=x"),
        ("--trainer.profiler=advanced", *OWN_CHECKPOINT),
        ("--trainer.profiler=pytorch",),
        ("--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks+=DeviceStatsMonitor"),
    ],
)
def test_what_only_watches_does_not_change_the_weights(cli: RunCLI, plain_run: Path, options: tuple[str, ...]) -> None:
    run = cli("fit", *FIT, "--trainer.log_every_n_steps=1", *options).run
    torch.testing.assert_close(weights(run), weights(plain_run), rtol=0, atol=0)
    assert read_results(run)["test"] == read_results(plain_run)["test"]
    assert (run / "checkpoints" / "mine.ckpt").exists() == ("ModelCheckpoint" in str(options))
    assert bool(list(run.glob("fit-*.pt.trace.json"))) == ("pytorch" in str(options))
    watched = scalars(run)
    if "LearningRateMonitor" in str(options):
        assert watched["lr-Adam"] == pytest.approx([0.001] * 10)  # of each step and each epoch
        assert len(watched["DeviceStatsMonitor.on_train_batch_end/cpu_percent"]) == 8


def test_max_time(cli: RunCLI, mnist: Path) -> None:
    outcome = cli("fit", *FIT, NO_BAR, "--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:01")
    assert outcome.code == 0, outcome.err
    results, checkpoint = read_results(outcome.run), outcome.run / "checkpoints" / "last.ckpt"
    assert results["train_seconds"] < 5
    assert results["planned_epochs"] is None
    assert load_checkpoint(checkpoint)["global_step"] == results["steps"] > 0
    assert results["test"]["errors"] == errors_of(checkpoint, mnist)


@pytest.mark.parametrize(
    ("options", "step", "saved_at"),
    [
        (EVERY_3, 6, 7),  # after step 6 comes a validation, which Lightning would skip on resuming
        (SCHEDULER, 5, 5),
        (("--trainer.precision=64-true",), 3, 3),
        (EMA, 8, 8),
    ],
)
def test_stopped_and_resumed(cli: RunCLI, stop: Stop, options: tuple[str, ...], step: int, saved_at: int) -> None:
    command = ("fit", *FIT, NO_BAR, *options)
    whole = cli(*command).run
    stop(step, signal.SIGTERM)
    stopped = cli(*command, "--resume=auto")
    assert f"after step {saved_at}. Go on with: python -m src fit --config" in stopped.err
    stop(-1, signal.SIGTERM)
    resumed = cli(*command, "--resume=auto").run
    assert resumed == whole.with_name("version_1")
    assert_same_run(whole, resumed)
    assert not read_results(resumed)["stopped_early"]


@pytest.mark.parametrize("logger", ["false", "CSVLogger"])
def test_other_loggers_can_be_stopped_too(cli: RunCLI, stop: Stop, tmp_path: Path, logger: str) -> None:
    folder = (f"--trainer.logger.save_dir={tmp_path}",) if logger != "false" else ()
    command = ("fit", *FIT, NO_BAR, f"--trainer.logger={logger}", *folder)
    whole = cli(*command, "--save_every_n_steps=3")
    assert whole.code == 0, whole.err
    checkpoint = Path(whole.out.split("Weights: ")[1].strip())
    assert load_checkpoint(checkpoint)["global_step"] == 8
    assert load_checkpoint(checkpoint.with_name("previous.ckpt"))["global_step"] == 6
    assert (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").exists() == (logger != "false")
    if logger == "false":
        assert f"error: {checkpoint} is of an earlier training." in cli(*command).err
        checkpoint.parent.rename(tmp_path / "earlier")
    stop(3, signal.SIGINT)
    stopped = cli(*command)
    assert stopped.code == 130
    option = stopped.err.split("after step 3. Go on with: the same command and ")[1].split()
    stop(-1, signal.SIGINT)
    resumed = cli(*command, *option)
    assert resumed.out.split("Epochs")[0] == whole.out.split("Epochs")[0]
    assert not (ROOT / "config.yaml").exists()


def test_a_checkpoint_of_an_exception_is_not_taken_up_unasked(cli: RunCLI, stop: Stop, tmp_path: Path) -> None:
    callback = ("--trainer.callbacks=OnExceptionCheckpoint", f"--trainer.callbacks.dirpath={tmp_path}")
    stop(3, signal.SIGINT)
    assert cli("fit", *FIT, NO_BAR, *callback).code == 130
    checkpoint = tmp_path / "on_exception.ckpt"
    assert load_checkpoint(checkpoint)["global_step"] == 3
    refused = cli("fit", *FIT, NO_BAR, *callback)
    assert refused.code == 1
    assert f"Lightning would start this training from {checkpoint}. Remove it, or name it" in refused.err


def test_two_loggers(cli: RunCLI, tmp_path: Path) -> None:
    ours = ("--trainer.logger+=src.tensorboard.logger.RunLogger", f"--trainer.logger.save_dir={tmp_path}")
    other = ("--trainer.logger+=CSVLogger", f"--trainer.logger.save_dir={tmp_path}")
    run = cli("fit", *FIT, NO_BAR, *ours, *other).run
    assert run == tmp_path / "default" / "version_0"
    assert read_results(run)["steps"] == 8
    assert (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").exists()


def test_without_a_test_the_last_line_says_where_the_weights_are(cli: RunCLI) -> None:
    outcome = cli("fit", *FIT, NO_BAR, "--trainer.limit_test_batches=0")
    assert outcome.code == 0, outcome.err
    result, where = outcome.out.strip().splitlines()[-2:]
    assert result == "Tiny was trained, but not tested: --trainer.limit_test_batches is 0."
    assert load_checkpoint(where.removeprefix("Weights: "))["global_step"] == 8


def test_printed_config_given_back(
    cli: RunCLI, plain_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(cli("fit", *FIT, NO_BAR, "--print_config").out)
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "1")  # the command line reads no settings from the environment
    monkeypatch.setenv("PL_FIT__TRAINER__MAX_EPOCHS", "1")
    run = cli("fit", f"--config={config}").run
    torch.testing.assert_close(weights(run), weights(plain_run), rtol=0, atol=0)


CHANGING = " ".join(SCHEDULER).replace(": ", ":")
ONE_CYCLE = "--optimizer=AdamW --lr_scheduler=OneCycleLR --lr_scheduler.max_lr=0.1"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--trainer.limit_train_batches=0", "--trainer.limit_train_batches is 0: there is nothing to fit."),
        (
            "--trainer.max_steps=0",
            "The training ended before its first step: --trainer.max_steps or",
        ),
        ("--trainer.max_time=00:00:00:00", "The training ended before its first step"),
        ("--trainer.max_epochs=-1", "--trainer.max_epochs is -1; it must be at least 1."),
        ("--trainer.precision=16-true", "--trainer.precision 16-true is not supported: the eps of Adam, 1e-7, is 0"),
        ("--trainer.strategy=fsdp", "--trainer.strategy fsdp is not supported: it splits the weights. Use ddp."),
        ("--trainer.strategy=ModelParallelStrategy", "ModelParallelStrategy is not supported: it splits the weights."),
        (
            "--trainer.callbacks=Timer --trainer.callbacks.interval=step",
            "Timer is not supported: set --trainer.max_time.",
        ),
        ("--trainer.strategy=deepspeed", "--trainer.strategy deepspeed is not supported: it splits the weights."),
        ("--trainer.accelerator=cpu --trainer.devices=[0,1]", "`devices` selected with `CPUAccelerator` should be"),
        ("--trainer.profiler=fast", "it can only be one of ['simple', 'advanced', 'pytorch', 'xla']"),
        ("--trainer.callbacks=ModelCheckpoint --trainer.callbacks.save_last=true", "must not write last.ckpt"),
        ("--trainer.callbacks=ModelCheckpoint --trainer.callbacks.filename=best", "must not write last.ckpt, best"),
        ("--trainer.callbacks=LearningRateFinder", "LearningRateFinder is not supported: it trains with a rate"),
        ("--trainer.callbacks=BatchSizeFinder", "BatchSizeFinder is not supported: it trains with a batch size"),
        (
            "--trainer.callbacks=BackboneFinetuning",
            "BackboneFinetuning is not supported: a resumed training would not train the unfrozen layers. Return a",
        ),
        (
            "--trainer.callbacks=StochasticWeightAveraging --trainer.callbacks.swa_lrs=0.1",
            "StochasticWeightAveraging is not supported: it averages after the last save. Use EMAWeightAveraging.",
        ),
        (
            "--trainer.callbacks=ModelPruning --trainer.callbacks.pruning_fn=l1_unstructured",
            "ModelPruning is not supported: it needs contiguous weights",
        ),
        (f"{CHANGING} --model.schedule=one_cycle", "needs a known number of steps"),
        (f"{CHANGING} {ONE_CYCLE}", "needs a known number of steps"),
    ],
)
def test_refused_in_a_line(cli: RunCLI, options: str, line: str) -> None:
    outcome = cli("fit", *FIT, NO_BAR, *options.split())
    assert outcome.code == 1
    (said,) = [text for text in outcome.err.splitlines() if text.startswith("error: ")]
    assert line in said
    assert "Traceback" not in outcome.err
