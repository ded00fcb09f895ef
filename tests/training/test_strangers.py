"""What trains in plain Lightning trains here unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from src.data import MNISTDataModule
from src.data.source import read_mnist
from src.models import LeNet5
from src.runs.checkpoints import load_checkpoint
from tests import strangers
from tests.conftest import SHORT, SHORT_WITH_TABS, RunCLI
from tests.tiny import Tiny
from tests.training.conftest import Stop

UNSAVED = "--model=tests.strangers.Unsaved --model.width=8 --model.activation=torch.nn.Tanh"
NETWORKS = {
    "PyTorchExample": "--model=tests.strangers.PyTorchExample",
    "LitClassifier": "--model=tests.strangers.LitClassifier --model.hidden=16 --model.weights=data.pt",
    "Unsaved": UNSAVED,
}
TWO_TESTED = "--trainer.limit_test_batches=2"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_a_stranger_is_trained_tested_predicted_and_exported(cli: RunCLI, mnist: Path, name: str) -> None:
    trained = cli("fit", *NETWORKS[name].split(), *SHORT_WITH_TABS)
    assert trained.code == 0, trained.err
    run, checkpoint = trained.run, f"--ckpt_path={trained.run / 'checkpoints' / 'last.ckpt'}"
    assert run.parent.name == name.lower()
    results = json.loads((run / "results.json").read_text())
    for command in ("test", "predict", "export"):
        done = cli(command, f"--model=tests.strangers.{name}", checkpoint)
        assert done.code == 0, done.err
        assert command != "test" or f"({results['test']['errors']:,} errors in 10,000 images)" in done.out
    rows = (run / "predictions.csv").read_text().splitlines()[1:]
    _, labels_N = read_mnist(mnist, "t10k")
    wrong = sum(int(row.split(",")[1]) != label for row, label in zip(rows, labels_N.tolist(), strict=True))
    assert wrong == results["test"]["errors"]  # whatever its predict_step returns


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_a_stranger_goes_on_where_it_was_stopped(cli: RunCLI, stop: Stop, name: str) -> None:
    command = ("fit", *NETWORKS[name].split(), *SHORT, TWO_TESTED, "--trainer.max_epochs=2")
    whole = cli(*command).run
    stop(3, 15)  # type: ignore[arg-type]
    stopped = cli(*command, "--resume=auto")
    assert stopped.code == 143, stopped.err
    stop(-1, 15)  # type: ignore[arg-type]
    resumed = cli(*command, "--resume=auto").run
    assert resumed == whole.with_name("version_1")
    first, second = (load_checkpoint(run / "checkpoints" / "last.ckpt") for run in (whole, resumed))
    torch.testing.assert_close(first["state_dict"], second["state_dict"], rtol=0, atol=0)
    curves = [json.loads((run / "results.json").read_text())["curves"] for run in (whole, resumed)]
    assert curves[0]["accuracy"] == curves[1]["accuracy"]


def test_what_it_logs_in_steps_keeps_its_name_and_step(cli: RunCLI) -> None:
    run = cli("fit", NETWORKS["PyTorchExample"], *SHORT, TWO_TESTED, "--trainer.log_every_n_steps=1").run
    events = EventAccumulator(str(run)).Reload()
    assert [point.step for point in events.Scalars("train_ce")] == [0, 1, 2, 3, 4]


def test_probabilities_are_refused(cli: RunCLI) -> None:
    outcome = cli("fit", "--model=tests.strangers.Probabilities", *SHORT)
    assert outcome.code == 1
    assert (
        "error: Probabilities.forward returns probabilities. It must return logits: leave out the softmax."
        in outcome.err
    )


def test_a_short_name_means_the_network_of_this_package(cli: RunCLI, tmp_path: Path) -> None:
    """In an option and in a config, though another LeNet5 is imported."""
    config = tmp_path / "config.yaml"
    config.write_text("model:\n  class_path: LeNet5\n")
    for name in (["--model=LeNet5"], ["--model", "LeNet5"], [f"--config={config}"]):
        printed = cli("fit", *name, "--print_config").out
        assert "class_path: src.models.LeNet5" in printed


def test_two_classes_of_one_name_do_not_share_a_folder(cli: RunCLI) -> None:
    ours = cli("fit", "--model=src.models.LeNet5", *SHORT, TWO_TESTED).run
    theirs = cli("fit", "--model=tests.strangers.LeNet5", *SHORT, TWO_TESTED).run
    assert ours.parent.name == "lenet5" and theirs.parent.name == "tests.strangers.lenet5"


# --- Optimiser and schedule from the command line --------------------------------------------------------------------


def optimizer_of(run: Path) -> Any:
    return load_checkpoint(run / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"][0]


@pytest.mark.parametrize("model", ["--model=tests.tiny.Tiny", *NETWORKS.values()])
def test_an_optimiser_of_the_command_line_replaces_that_of_the_network(cli: RunCLI, model: str) -> None:
    options = ("--optimizer=SGD", "--optimizer.lr=0.25", "--optimizer.weight_decay=1e-4")
    schedule = ("--lr_scheduler=StepLR", "--lr_scheduler.step_size=1", "--lr_scheduler.gamma=0.5")
    outcome = cli("fit", *model.split(), *options, *schedule, *SHORT, TWO_TESTED, "--trainer.max_epochs=2")
    assert outcome.code == 0, outcome.err
    group = optimizer_of(outcome.run)
    assert (group["lr"], group["weight_decay"], group["initial_lr"]) == (0.0625, 1e-4, 0.25)
    rates = json.loads((outcome.run / "results.json").read_text())["curves"]["learning_rate"]["train"]
    assert list(rates.values()) == [0.25, 0.125]


class OtherRate(Tiny):
    """Has another rate by default."""

    def __init__(self, lr: float = 0.01, **kwargs: Any) -> None:
        super().__init__(lr=lr, **kwargs)


def test_a_default_of_the_network_is_no_setting_of_the_user(cli: RunCLI) -> None:
    options = ("--optimizer=SGD", "--optimizer.lr=0.25", *SHORT, TWO_TESTED)
    outcome = cli("fit", "--model=tests.training.test_strangers.OtherRate", *options)
    assert outcome.code == 0, outcome.err
    assert optimizer_of(outcome.run)["lr"] == 0.25


def test_a_damaged_config_of_an_earlier_run_ends_no_training(cli: RunCLI) -> None:
    first = cli("fit", "--model=tests.tiny.Tiny", *SHORT, TWO_TESTED).run
    (first / "config.yaml").write_text("[")
    assert cli("fit", "--model=tests.tiny.Tiny", *SHORT, TWO_TESTED).run == first.with_name("version_1")


def test_weights_of_64_bits_are_tested_with_all_their_digits(cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    double = ("--trainer.precision=64-true", TWO_TESTED)
    run = cli("fit", "--model=tests.tiny.Tiny", *SHORT, *double).run
    checkpoint, tested = run / "checkpoints" / "last.ckpt", []
    monkeypatch.setattr(Tiny, "on_test_end", lambda self: tested.append(self.state_dict()))
    assert cli("test", "--model=tests.tiny.Tiny", f"--ckpt_path={checkpoint}", *double).code == 0
    torch.testing.assert_close(tested[0], load_checkpoint(checkpoint)["state_dict"], rtol=0, atol=0)


def test_one_cycle_ends_with_the_training(cli: RunCLI) -> None:
    options = "--optimizer=SGD --optimizer.lr=0.1 --lr_scheduler=OneCycleLR --lr_scheduler.max_lr=0.2"
    run = cli("fit", "--model=tests.tiny.Tiny", *options.split(), *SHORT, TWO_TESTED).run
    [schedule] = load_checkpoint(run / "checkpoints" / "last.ckpt")["lr_schedulers"]
    assert (schedule["last_epoch"], schedule["total_steps"]) == (5, 5)  # it counts steps
    more = cli("fit", "--model=tests.tiny.Tiny", *options.split(), "--lr_scheduler.total_steps=100", *SHORT, TWO_TESTED)
    assert load_checkpoint(more.run / "checkpoints" / "last.ckpt")["lr_schedulers"][0]["total_steps"] == 100
    unknown = cli(
        "fit",
        "--model=tests.tiny.Tiny",
        *options.split(),
        *SHORT,
        "--trainer.max_epochs=-1",
        "--trainer.max_time=00:00:01:00",
    )
    assert unknown.code == 1 and "set --trainer.max_epochs" in unknown.err


def test_a_network_of_a_stranger_may_end_inside_its_schedule_but_not_after_it(cli: RunCLI, stop: Stop) -> None:
    options = "--optimizer=AdamW --lr_scheduler=OneCycleLR --lr_scheduler.max_lr=0.01 --trainer.max_epochs=2"
    command = ("fit", "--model=tests.strangers.PyTorchExample", *SHORT, TWO_TESTED, *options.split())
    stop(3, 15)  # type: ignore[arg-type]
    stopped = cli(*command)
    assert stopped.code == 143
    stop(-1, 15)  # type: ignore[arg-type]
    checkpoint = f"--ckpt_path={stopped.err.split()[-1]}/checkpoints/last.ckpt"
    longer = cli(*command, checkpoint, "--trainer.max_epochs=3")
    assert longer.code == 1 and "checkpoint has 10 steps, but that of this training has 15" in longer.err
    shorter = cli(*command, checkpoint, "--trainer.max_epochs=1")
    assert shorter.code == 0, shorter.err
    assert load_checkpoint(shorter.run / "checkpoints" / "last.ckpt")["lr_schedulers"][0]["total_steps"] == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--optimizer=SGD --optimizer.lr=0.1 --model.lr=0.2",
            "--model.lr is a setting of Adam, which --optimizer replaces",
        ),
        ("--lr_scheduler=StepLR --lr_scheduler.step_size=1", "--lr_scheduler needs an --optimizer"),
    ],
)
def test_settings_of_two_optimisers_are_refused(cli: RunCLI, options: str, message: str) -> None:
    outcome = cli("fit", "--model=tests.tiny.Tiny", *options.split(), *SHORT)
    assert outcome.code == 1 and message in outcome.err


# --- Without the command line ----------------------------------------------------------------------------------------


def test_a_network_of_this_package_trains_in_a_loop_of_the_user() -> None:
    network = LeNet5()
    optimizer: Any = network.configure_optimizers()
    x_NCHW, labels_N = torch.randn(8, 1, 28, 28), torch.randint(10, (8,))
    before = nn.functional.cross_entropy(network(x_NCHW), labels_N).item()
    for _ in range(5):
        optimizer.zero_grad()
        network.loss(network(x_NCHW), labels_N).backward()
        optimizer.step()
    assert nn.functional.cross_entropy(network(x_NCHW), labels_N).item() < before


def test_a_stranger_trains_on_our_data_in_a_plain_trainer(mnist: Path, tmp_path: Path) -> None:
    limits: Any = {"limit_train_batches": 3, "limit_val_batches": 2, "max_epochs": 1}
    trainer = Trainer(default_root_dir=tmp_path, logger=False, enable_progress_bar=False, **limits)
    trainer.fit(strangers.LitClassifier(), MNISTDataModule(str(mnist)))
    assert trainer.global_step == 3
