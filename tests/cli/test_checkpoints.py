"""What a checkpoint decides in the commands that start from it."""

import json
import re
from pathlib import Path

import pytest
import yaml

from src.data import MNISTDataModule
from src.runs.checkpoints import CheckedCheckpointIO
from src.runs.network import TrainedNetwork
from tests.conftest import SHORT, RunCLI


def test_checkpoint_is_all_that_test_needs(cli: RunCLI, lenet5_run: Path) -> None:
    results = json.loads((lenet5_run / "results.json").read_text())
    before = sorted(lenet5_run.parent.rglob("*"))
    outcome = cli("test", f"--ckpt_path={lenet5_run / 'checkpoints' / 'last.ckpt'}")
    assert outcome.code == 0, outcome.err
    # The run was trained without normalisation, and is tested so.
    assert f"({results['test']['errors']:,} errors in 10,000 images)" in outcome.out
    assert sorted(lenet5_run.parent.rglob("*")) == before  # a test makes no run


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_saved_config_is_read_by_every_command(cli: RunCLI, lenet5_run: Path, command: str) -> None:
    """As users of LightningCLI give it back."""
    limit = f"--trainer.limit_{command.replace('validate', 'val')}_batches=1"
    checkpoint = f"--ckpt_path={lenet5_run / 'checkpoints' / 'last.ckpt'}"
    outcome = cli(command, f"--config={lenet5_run / 'config.yaml'}", checkpoint, limit)
    assert outcome.code == 0, outcome.err
    assert "128 predictions" in outcome.out or "in 128 images" in outcome.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model=CNN"], "contains LeNet5, not CNN"),
        (["--model=LeNet5", "--model.lr=0.5"], "--model.lr 0.5 contradicts .* made with 0.001"),
        (["--data.normalize=true"], "--data.normalize True contradicts .* made with False"),
        (["--data.val_size=100"], "--data.val_size 100 contradicts"),
        (["--config=configs/cnn.yaml"], "contains LeNet5, not CNN"),
    ],
)
@pytest.mark.parametrize("command", ["test", "validate", "predict", "fit"])
def test_contradiction_of_the_checkpoint_is_an_error(
    cli: RunCLI, lenet5_run: Path, command: str, args: list[str], message: str
) -> None:
    outcome = cli(command, *args, f"--ckpt_path={lenet5_run / 'checkpoints' / 'last.ckpt'}")
    assert outcome.code == 1
    assert re.search(message, outcome.err)


def test_agreement_with_the_checkpoint_is_none(cli: RunCLI, lenet5_run: Path) -> None:
    agreeing = ("--model=LeNet5", "--model.lr=0.001", "--data.normalize=false", "--data.batch_size=1000")
    one = "--trainer.limit_test_batches=1"
    outcome = cli("test", *agreeing, one, f"--ckpt_path={lenet5_run / 'checkpoints' / 'last.ckpt'}")
    assert outcome.code == 0, outcome.err
    assert "in 1,000 images" in outcome.out  # the free setting is that of the command line


def test_checkpoint_of_another_program_names_no_network(cli: RunCLI, tmp_path: Path) -> None:
    CheckedCheckpointIO().save_checkpoint({"state_dict": {}}, tmp_path / "other.ckpt")
    outcome = cli("test", f"--ckpt_path={tmp_path / 'other.ckpt'}")
    assert (outcome.code, "does not name its network" in outcome.err) == (1, True)


@pytest.mark.parametrize("name", ["last", "best"])
def test_best_and_last_are_files_of_a_run_that_is_named(cli: RunCLI, lenet5_run: Path, name: str) -> None:
    outcome = cli(
        "test", f"--config={lenet5_run / 'config.yaml'}", f"--ckpt_path={name}", "--trainer.limit_test_batches=2"
    )
    if name == "last":
        assert outcome.code == 0 and "test accuracy" in outcome.out, outcome.err
    else:  # it was trained without held-out images
        assert f"There is no checkpoint {lenet5_run / 'checkpoints' / 'best.ckpt'}" in outcome.err


@pytest.mark.parametrize(("options", "seed_of_data"), [((), 3), (("--data.seed=5",), 5)])
def test_the_held_out_images_are_those_of_the_training(
    cli: RunCLI, mnist: Path, options: tuple[str, ...], seed_of_data: int
) -> None:
    """Its seed chooses them, or that of the data."""
    run = cli("fit", "--model=LeNet5", *SHORT, "--seed_everything=3", "--data.val_size=100", *options).run
    checkpoint = run / "checkpoints" / "last.ckpt"
    data = MNISTDataModule(data_dir=str(mnist), val_size=100, seed=seed_of_data)
    data.setup("validate")
    images, labels_N = data.val
    trained = TrainedNetwork(checkpoint)
    trained.datamodule.setup("validate")
    assert trained.datamodule.val[0].equal(images)
    (probabilities_NK,) = trained.probabilities(images)
    n_errors = int((probabilities_NK.argmax(dim=1) != labels_N).sum())
    validated = cli("validate", f"--ckpt_path={checkpoint}")
    assert f"({n_errors} errors in 100 images)" in validated.out, validated.err


def test_a_config_without_a_class_means_mnist_by_any_of_its_names(cli: RunCLI) -> None:
    named = ("--config=configs/lenet5-accurate.yaml", "--data=src.data.mnist.MNISTDataModule", "--print_config")
    assert yaml.safe_load(cli("fit", *named).out)["data"]["init_args"]["max_rotation"] == 9
