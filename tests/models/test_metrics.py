"""A metric that is added to `EpochMetrics` needs no change in any other file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from src.data.source import read_mnist
from src.models import EpochMetrics, classifier
from src.runs.network import TrainedNetwork
from tests.conftest import SHORT, RunCLI
from tests.tiny import Tiny


class WithTopTwo(EpochMetrics):
    """`EpochMetrics` with one more metric: how often the label has one of the two highest logits."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("n_in_top_two", torch.tensor(0), dist_reduce_fx="sum")
        self.n_in_top_two: Tensor

    def update(self, loss_sum: Tensor, logits_NK: Tensor, labels_N: Tensor) -> None:
        super().update(loss_sum, logits_NK, labels_N)
        self.n_in_top_two += (logits_NK.topk(2, dim=1).indices == labels_N[:, None]).sum()

    def compute(self) -> dict[str, Tensor]:
        return super().compute() | {"top2_accuracy": self.n_in_top_two / self.n_images}


@pytest.fixture(autouse=True)
def with_top_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "EpochMetrics", WithTopTwo)


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


def test_an_added_metric_is_kept_inside_an_epoch() -> None:
    first, resumed, never_stopped = Tiny(), Tiny(), Tiny()
    batches = [(torch.rand(size, 1, 28, 28), torch.randint(10, (size,)), 1 / size) for size in (8, 5)]
    checkpoint: dict[str, Any] = {}
    first.training_step(batches[0], 0)
    first.on_save_checkpoint(checkpoint)
    resumed.on_load_checkpoint(checkpoint)
    for network in (resumed, never_stopped):
        network.load_state_dict(first.state_dict())
    never_stopped.training_step(batches[0], 0)
    for network in (resumed, never_stopped):
        network.training_step(batches[1], 1)
    assert resumed.train_metrics.local_values() == never_stopped.train_metrics.local_values()
    assert resumed.train_metrics.local_values()["images"] == 13


def test_local_values_are_those_of_compute_without_waiting_for_other_processes() -> None:
    def other_processes(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("synchronised")

    metrics = WithTopTwo()
    metrics.update(torch.tensor(3.0), torch.eye(4, 10), torch.tensor([0, 1, 2, 9]))
    expected = metrics.compute()
    metrics.dist_sync_fn, metrics.distributed_available_fn = other_processes, lambda: True
    assert metrics.local_values() == expected
    assert (expected["accuracy"], expected["top2_accuracy"], expected["errors"]) == (0.75, 0.75, 1)
    metrics.update(torch.tensor(0.0), torch.eye(1, 10), torch.tensor([0]))  # clears the cache of `compute`
    assert metrics.local_values()["accuracy"] == 0.8
    with pytest.raises(AssertionError, match="synchronised"):
        metrics.compute()


def test_a_conversion_of_the_network_does_not_round_the_sums() -> None:
    metrics = Tiny().to(torch.bfloat16).test_metrics
    metrics.update(torch.tensor(1681.3), torch.zeros(4, 10), torch.zeros(4, dtype=torch.long))
    assert metrics.compute()["loss"].item() == pytest.approx(1681.3 / 4, rel=1e-6)


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
