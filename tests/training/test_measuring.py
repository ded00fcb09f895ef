"""What is measured beside the network, whatever it overrides, forgets, names or logs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from src.data.source import read_mnist
from src.runs.network import TrainedNetwork
from src.training import measuring
from src.training.measuring import Measuring
from src.training.metrics import EpochMetrics
from tests.conftest import SHORT, RunCLI
from tests.tiny import Tiny


class WithTopTwo(EpochMetrics):
    """`EpochMetrics` with one more metric: how often the label has one of the two highest logits."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("n_in_top_two", torch.tensor(0), dist_reduce_fx="sum")
        self.n_in_top_two: Tensor

    def update(self, logits_NK: Tensor, labels_N: Tensor) -> None:
        super().update(logits_NK, labels_N)
        self.n_in_top_two += (logits_NK.topk(2, dim=1).indices == labels_N[:, None]).sum()

    def compute(self) -> dict[str, Tensor]:
        return super().compute() | {"top2_accuracy": self.n_in_top_two / self.n_images}


@pytest.fixture(autouse=True)
def with_top_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "EpochMetrics", WithTopTwo)


def scalars(folder: Path) -> dict[str, float]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}


def test_an_added_metric_has_charts_and_curves_and_a_test_result(cli: RunCLI) -> None:
    run = cli("fit", "--model=tests.tiny.Tiny", *SHORT, "--trainer.limit_test_batches=2").run
    results = json.loads((run / "results.json").read_text())
    curves = results["curves"]
    assert curves.keys() == {"loss", "accuracy", "top2_accuracy", "learning_rate", "epoch_seconds"}
    for sub_run in ("train", "validation", "test"):
        value = curves["top2_accuracy"][sub_run]["1"]
        assert curves["accuracy"][sub_run]["1"] < value < 1
        assert scalars(run / sub_run)["details/top2_accuracy"] == pytest.approx(value)
    assert results["test"]["top2_accuracy"] == pytest.approx(curves["top2_accuracy"]["test"]["1"])
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["curves"]["top2_accuracy"].keys() == {"train", "validation"}


def test_the_sums_are_kept_inside_an_epoch() -> None:
    first, resumed, never_stopped = Measuring(), Measuring(), Measuring()
    one, other = ((torch.randn(size, 10), torch.randint(10, (size,))) for size in (8, 5))
    for before in (first, never_stopped):
        before.metrics["train"].update(*one)
    resumed.load_state_dict(first.state_dict())
    resumed.on_train_start(Trainer(logger=False), Tiny())
    for after in (resumed, never_stopped):
        after.metrics["train"].update(*other)
    assert resumed.metrics["train"].local_values() == never_stopped.metrics["train"].local_values()
    assert resumed.metrics["train"].local_values()["images"] == 13


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_losses_are_summed_in_full_precision(cli: RunCLI, mnist: Path, precision: str) -> None:
    n_batches = 3 if precision == "64-true" else 20  # convolutions in 64 bits are slow
    options = (f"--trainer.precision={precision}", f"--trainer.limit_test_batches={n_batches}")
    more = (f"--trainer.limit_train_batches={n_batches}", "--trainer.gradient_clip_val=1")
    outcome = cli("fit", "--model=LeNet5", *SHORT, *options, *more)
    assert outcome.code == 0, outcome.err
    trained = TrainedNetwork(outcome.run / "checkpoints" / "last.ckpt")
    images_NHW, labels_N = (tensor[: n_batches * 128] for tensor in read_mnist(mnist, "t10k"))
    dtype = {"bf16-true": torch.bfloat16, "bf16-mixed": torch.float, "64-true": torch.double}[precision]
    x_NCHW = ((images_NHW.unsqueeze(1) / 255 - 0.1307) / 0.3081).to(dtype)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        logits_NK = torch.cat([trained.network.to(dtype)(batch_NCHW) for batch_NCHW in x_NCHW.split(128)])
    exact = F.cross_entropy(logits_NK.double(), labels_N).item()
    told = json.loads((outcome.run / "results.json").read_text())["test"]["loss"]
    assert told == pytest.approx(exact, rel=1e-5 if precision == "64-true" else 0.005)
    if precision == "bf16-mixed":  # `test` without the option evaluates in 32 bits
        tested = cli("test", f"--ckpt_path={outcome.run / 'checkpoints' / 'last.ckpt'}", *options)
        assert f"loss {told:.4f}" in tested.out


class OwnSteps(Tiny):
    """Has steps, hooks and metrics of its own, without `super()`, and logs the names of this package."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.val_metrics = MulticlassAccuracy(10)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x_NCHW, labels_N, *_ = batch
        loss = F.nll_loss(self(x_NCHW).log_softmax(dim=1), labels_N)
        self.log("train_loss", 7.0 * batch_idx, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(batch[0])
        self.log("val_loss", 7.0)
        self.log("val_accuracy", -float(self.current_epoch))

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        return str(self(batch[0]).shape)

    def on_train_epoch_start(self) -> None: ...

    def on_train_epoch_end(self) -> None: ...

    def on_validation_epoch_end(self) -> None: ...

    def on_test_epoch_end(self) -> None: ...


def test_nothing_that_a_network_overrides_or_logs_changes_what_is_measured(cli: RunCLI, tmp_path: Path) -> None:
    """And what it logs keeps its name and step, and is what callbacks monitor."""
    settings = (*SHORT, "--trainer.max_epochs=3", "--trainer.limit_test_batches=2", "--trainer.log_every_n_steps=1")
    plain = cli("fit", "--model=tests.tiny.Tiny", *settings).run
    stopping = ("--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val_accuracy")
    mode = ("--trainer.callbacks.mode=max", "--trainer.callbacks.patience=2")
    own = cli("fit", "--model=tests.training.test_measuring.OwnSteps", *settings, *stopping, *mode).run
    first, second = (json.loads((run / "results.json").read_text()) for run in (plain, own))
    assert second["epochs"] == 3 and second["stopped_early"] is False
    for tag in ("loss", "accuracy"):
        for sub_run in ("train", "validation", "test"):
            assert second["curves"][tag][sub_run] == pytest.approx(first["curves"][tag][sub_run], rel=1e-4)
    assert second["test"] == pytest.approx(first["test"], rel=1e-4)
    logged = EventAccumulator(str(own)).Reload()
    assert [(one.step, one.value) for one in logged.Scalars("train_loss_step")][:3] == [(0, 0), (1, 7), (2, 14)]
    assert {one.value for one in logged.Scalars("val_loss")} == {7.0}


class NeverCallsForward(Tiny):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x_NCHW, labels_N, *_ = batch
        return F.cross_entropy(self.network(x_NCHW), labels_N)


def test_a_training_step_that_never_calls_forward_has_no_curve_and_a_line(cli: RunCLI) -> None:
    with pytest.warns(UserWarning, match="No train step calls forward"):
        outcome = cli("fit", "--model=tests.training.test_measuring.NeverCallsForward", *SHORT)
    curves = json.loads((outcome.run / "results.json").read_text())["curves"]
    assert {name for name, points in curves["accuracy"].items() if points} == {"validation", "test"}


class ValidatesWithoutForward(Tiny):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.network(batch[0])


def test_a_validation_that_never_calls_forward_has_no_curve_and_a_line(cli: RunCLI) -> None:
    model = "--model=tests.training.test_measuring.ValidatesWithoutForward"
    with pytest.warns(UserWarning, match="No val step calls forward"):
        outcome = cli("fit", model, *SHORT)
    assert outcome.code == 0, outcome.err
    curves = json.loads((outcome.run / "results.json").read_text())["curves"]
    assert {name for name, points in curves["accuracy"].items() if points} == {"train", "test"}
    again = cli("validate", model, f"--ckpt_path={outcome.run / 'checkpoints' / 'last.ckpt'}")
    assert (again.code, "never call forward, so nothing was measured" in again.err) == (1, True)
