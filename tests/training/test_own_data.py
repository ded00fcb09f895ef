"""Any LightningDataModule with batches (x, y): trained, tested, resumed, compared, searched, on several devices."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning import Trainer

from src.runs.checkpoints import Checkpoint, load_checkpoint
from tests import strangers
from tests.conftest import CURVES_ALONE, NO_TABS, ROOT, Refused, RunCLI
from tests.training.conftest import Stop
from tests.training.test_distributed import run_forks

PLAIN = ("--model=tests.strangers.LitClassifier", "--data=tests.strangers.PlainData")
ONE_EPOCH = ("--trainer.max_epochs=1", CURVES_ALONE)
TWO_EPOCHS = ("--trainer.max_epochs=2", CURVES_ALONE)


def test_it_is_trained_tested_predicted_and_exported(cli: RunCLI) -> None:
    trained = cli("fit", *PLAIN, "--trainer.max_epochs=2")
    assert trained.code == 0, trained.err
    run, checkpoint = trained.run, f"--ckpt_path={trained.run / 'checkpoints' / 'last.ckpt'}"
    results = json.loads((run / "results.json").read_text())
    assert (results["test"]["images"], results["steps"], results["stopped_early"]) == (101, 22, False)
    assert results["curves"]["accuracy"]["validation"].keys() == {"1", "2"}
    for command in ("test", "predict", "export"):
        done = cli(command, *PLAIN, checkpoint)
        assert done.code == 0, done.err
        assert command != "test" or f"({results['test']['errors']} errors in 101 images)" in done.out
    rows = (run / "predictions.csv").read_text().splitlines()[1:]
    with np.load(run / "answers.npz") as answers:
        predicted = [int(row.split(",")[1]) for row in rows]
        assert predicted == answers["probabilities"].argmax(axis=1).tolist()
        assert (np.array(predicted) != answers["labels"]).sum() == results["test"]["errors"]


def test_a_checkpoint_does_not_import_its_data(cli: RunCLI, refused: Refused) -> None:
    checkpoint = cli("fit", *PLAIN, *ONE_EPOCH).run / "checkpoints" / "last.ckpt"
    content = load_checkpoint(checkpoint)
    content["settings"]["data"]["class_path"] = "never_imported.Data"
    torch.save(content, checkpoint)
    said = refused("test", PLAIN[0], f"--ckpt_path={checkpoint}")
    assert "contains never_imported.Data. If you trust that module, add: --data never_imported.Data" in said


def test_a_checkpoint_of_plain_lightning_is_tested(cli: RunCLI, tmp_path: Path) -> None:
    plain: Any = {"enable_progress_bar": False, "logger": False, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=2, **plain)
    trainer.fit(strangers.LitClassifier(), strangers.PlainData())
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    tested = cli("test", *PLAIN, f"--ckpt_path={tmp_path / 'plain.ckpt'}")
    assert tested.code == 0 and "in 101 images" in tested.out, tested.err


def test_its_seed_is_its_own(cli: RunCLI, tmp_path: Path) -> None:
    named = (PLAIN[0], "--data=tests.strangers.Untyped")
    run = cli("fit", *named, "--data.folder=./x/y", *ONE_EPOCH, "--seed_everything=3").run
    checkpoint = Checkpoint.read(run / "checkpoints" / "last.ckpt")
    assert (checkpoint.seed, checkpoint.data_arguments["seed"]) == (3, 7)
    tested = cli("test", *named, f"--ckpt_path={checkpoint.path}")
    assert tested.code == 0 and "in 101 images" in tested.out, tested.err
    plain: Any = {"enable_progress_bar": False, "logger": False, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=1, **plain)
    trainer.fit(strangers.LitClassifier(), strangers.Untyped())
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    checkpoint = Checkpoint.read(tmp_path / "plain.ckpt")
    assert (checkpoint.seed, checkpoint.data_arguments["seed"]) == (None, 7)


@pytest.mark.parametrize(("data", "goes_on_at"), [("PlainData", "the end of epoch 1"), ("StatefulData", "")])
def test_it_goes_on_where_its_loader_can(cli: RunCLI, stop: Stop, data: str, goes_on_at: str) -> None:
    command = ("fit", PLAIN[0], f"--data=tests.strangers.{data}", *TWO_EPOCHS)
    whole = cli(*command).run
    stop(14, 15)  # type: ignore[arg-type]
    stopped = cli(*command, "--resume=auto")
    assert stopped.code == 143, stopped.err
    assert not goes_on_at or f"goes on from {goes_on_at}" in stopped.err
    run = whole.with_name("version_1")
    assert load_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == (11 if goes_on_at else 14)
    stop(-1, 15)  # type: ignore[arg-type]
    resumed = cli("fit", "--config", str(run / "config.yaml"), "--resume", str(run))
    assert resumed.code == 0, resumed.err
    first, second = (load_checkpoint(one / "checkpoints" / "last.ckpt")["state_dict"] for one in (whole, run))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_networks_are_compared_and_searched_on_it(cli: RunCLI, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        for network in ("LitClassifier", "Volume"):
            options = (f"--model=tests.strangers.{network}", PLAIN[1], f"--seed_everything={seed}")
            assert cli("fit", *options, *ONE_EPOCH).code == 0
    compared = cli("compare", str(tmp_path / "lightning_logs"), f"--output={tmp_path / 'comparison'}")
    assert compared.code == 0, compared.err
    report = json.loads((tmp_path / "comparison" / "litclassifier-vs-volume" / "report.json").read_text())
    assert report["images"] == 101 and report["classes"] == list("0123456789")
    of_lit = next(network for network in report["networks"] if network["name"] == "LitClassifier")
    assert of_lit["cost"]["multiply_adds"] == 784 * 32 + 32 * 10
    (tmp_path / "search.yaml").write_text("model.learning_rate: {log: [1e-4, 1e-2]}\n")
    where = (f"--search={tmp_path / 'search.yaml'}", f"--output={tmp_path / 'tuning'}", "--trials=2", "--fresh=1")
    searched = cli("tune", *PLAIN, "--trainer.max_epochs=1", *where)
    assert searched.code == 0, searched.err
    assert json.loads((tmp_path / "tuning" / "litclassifier" / "results.json").read_text())["images"] == 50


def test_each_image_counts_once_on_two_devices(cli: RunCLI, tmp_path: Path) -> None:
    checkpoint = cli("fit", *PLAIN, *ONE_EPOCH).run / "checkpoints" / "last.ckpt"
    alone = cli("test", *PLAIN, f"--ckpt_path={checkpoint}")
    answers = checkpoint.parent.parent / "answers.npz"
    with np.load(answers) as stored:
        expected = stored["probabilities"], stored["labels"]
    answers.unlink()
    output = run_forks(tmp_path / "two", 2, "test", *PLAIN, f"--ckpt_path={checkpoint}")
    assert "in 101 images" in alone.out
    assert alone.out.partition("LitClassifier: ")[2].strip() in output
    with np.load(answers) as stored:
        np.testing.assert_allclose(stored["probabilities"], expected[0], atol=1e-5)
        assert stored["labels"].tolist() == expected[1].tolist()


def test_an_unused_parameter_needs_another_ddp(tmp_path: Path) -> None:
    command = (
        "fit",
        "--model=tests.strangers.WithUnused",
        PLAIN[1],
        *ONE_EPOCH,
        f"--trainer.default_root_dir={tmp_path}",
    )
    output = run_forks(tmp_path / "two", 2, *command, strategy="ddp_find_unused_parameters_true")
    assert "in 101 images" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model=LeNet5", "--data=tests.strangers.RealLabels"), "RealLabels must yield batches (x, y)"),
        (("--model=LeNet5", PLAIN[1], "--data.channels=3"), "LeNet5 takes images of shape (1, 28, 28)"),
        (("--model=LeNet5", "--model.num_classes=12"), "LeNet5 has 12 outputs, but the data set has 10 classes"),
        ((PLAIN[0], "--data=tests.strangers.Eleven"), "has 10 outputs, but the data set has the label 10"),
        (
            ("--model=LeNet5", "--data=tests.strangers.LitClassifier"),
            "tests.strangers.LitClassifier is not a data module",
        ),
        (("--model=LeNet5", "--data=no.such.Data"), "no.such.Data is not a data module (No module named 'no')"),
    ],
)
def test_what_does_not_fit_is_refused(refused: Refused, options: tuple[str, ...], message: str) -> None:
    assert message in refused("fit", *options, *ONE_EPOCH)


def test_without_test_images_it_is_trained_and_says_so(cli: RunCLI) -> None:
    outcome = cli("fit", PLAIN[0], "--data=tests.strangers.WithoutTest", *ONE_EPOCH)
    assert outcome.code == 0, outcome.err
    assert "was trained, but not tested: WithoutTest has no test_dataloader" in outcome.out
    assert "Weights: " in outcome.out


# --- Networks of all kinds -------------------------------------------------------------------------------------------

NETWORKS = {
    "ResNet": "",
    "ResNet on colour images": "--model.channels=3 --data.channels=3 --data.side=32 --trainer.val_check_interval=0.5",
    "ViT": "--model.config.width=8 --trainer.val_check_interval=0.25",
    "Capsules": "",
    "Volume": "--trainer.accumulate_grad_batches=2",
    "TwoOptimizers": "",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_trains_resumes_is_tested_and_exported_unchanged(cli: RunCLI, stop: Stop, name: str) -> None:
    named = (f"--model=tests.strangers.{name.partition(' ')[0]}", PLAIN[1])
    few = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=4", "--data.batch_size=16")
    command = ("fit", *named, *NETWORKS[name].split(), *few)
    trained = cli(*command)
    assert trained.code == 0, trained.err
    whole = trained.run
    stop(6, 15)  # type: ignore[arg-type]
    assert cli(*command, CURVES_ALONE, "--resume=auto").code in (0, 143)  # with fewer steps it has ended before
    stop(-1, 15)  # type: ignore[arg-type]
    resumed = cli(*command, CURVES_ALONE, "--resume=auto")
    assert resumed.code == 0, resumed.err
    runs = [whole, whole.with_name("version_1")]
    first, second = (load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in runs)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    results = [json.loads((run / "results.json").read_text()) for run in runs]
    assert results[0]["test"] == results[1]["test"]
    assert results[0]["curves"]["accuracy"] == results[1]["curves"]["accuracy"]
    assert results[0]["steps"] == (4 if "accumulate" in NETWORKS[name] else 8)
    for action in ("test", "export"):
        done = cli(action, *named, f"--ckpt_path={whole / 'checkpoints' / 'last.ckpt'}")
        assert done.code == 0, done.err
        assert action == "export" or f"({results[0]['test']['errors']} errors in 101 images)" in done.out


def test_a_config_names_classes_for_an_evaluation(cli: RunCLI, tmp_path: Path) -> None:
    """In a process of its own, in which nothing of the network is imported before."""
    run = cli("fit", *PLAIN, *ONE_EPOCH).run
    arguments = ("test", f"--config={run / 'config.yaml'}", "--ckpt_path=last")
    done = subprocess.run([sys.executable, "-m", "src", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "in 101 images" in done.stdout, done.stderr


def test_a_function_as_an_argument_is_code(cli: RunCLI, refused: Refused) -> None:
    named = ("--model=tests.strangers.WithFunction", PLAIN[1])
    trained = cli("fit", *named, "--model.activation=tests.strangers.swish", *ONE_EPOCH)
    assert trained.code == 0, trained.err
    checkpoint = f"--ckpt_path={trained.run / 'checkpoints' / 'last.ckpt'}"
    assert "tests.strangers.swish, which is not an imported torch module" in refused("test", *named, checkpoint)
    with_config = cli("test", f"--config={trained.run / 'config.yaml'}", checkpoint)
    assert with_config.code == 0, with_config.err
    assert trained.out.partition("test accuracy")[2].splitlines()[0] in with_config.out


def test_two_classes_of_one_name_are_compared_and_searched(cli: RunCLI, tmp_path: Path) -> None:
    data = {"class_path": "tests.strangers.PlainData"}
    for name, network in (("ours", "src.models.LeNet5"), ("theirs", "tests.strangers.LeNet5")):
        trainer = {"max_epochs": 1, "default_root_dir": str(tmp_path)}
        config = {"model": {"class_path": network}, "data": data, "trainer": trainer}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config | {"tensorboard": json.loads(NO_TABS)}))
    configs = [str(tmp_path / f"{name}.yaml") for name in ("ours", "theirs")]
    where = (f"--output={tmp_path / 'comparison'}", "--name=two", "--seeds=2")
    compared = cli("compare", "--train", *configs, *where)
    assert compared.code == 0, compared.err
    assert {path.name for path in (tmp_path / "lightning_logs").iterdir()} == {"lenet5", "tests.strangers.lenet5"}
    report = json.loads((tmp_path / "comparison" / "two" / "report.json").read_text())
    assert {network["settings"]["model.class_path"] for network in report["networks"]} == {
        "src.models.LeNet5",
        "tests.strangers.LeNet5",
    }
    assert len({network["name"] for network in report["networks"]}) == 2
    (tmp_path / "search.yaml").write_text("model.lr: {choice: [1e-3, 1e-2]}\n")
    search = (f"--search={tmp_path / 'search.yaml'}", f"--output={tmp_path / 'tuning'}", "--trials=1", "--fresh=1")
    searched = cli("tune", f"--config={configs[0]}", *search, f"--against={configs[1]}")
    assert searched.code == 0, searched.err
    fresh = json.loads((tmp_path / "tuning" / "lenet5" / "results.json").read_text())["fresh"]
    assert list(fresh) == ["Trial 0", configs[1]] and all(len(errors) == 1 for errors in fresh.values())
