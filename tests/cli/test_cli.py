"""The command line: what a user does, and what a user can get wrong."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torchvision.datasets import MNIST

from src.cli.main import HELP
from src.models import LeNet5
from src.runs.checkpoints import load_checkpoint
from tests.conftest import CURVES_ALONE, ROOT, SHORT, SHORT_WITH_TABS, Outcome, Refused, RunCLI
from tests.forks import Fork, command_line


def shell(*args: str) -> Outcome:
    """Run `python -m src` as a user does."""
    command = [sys.executable, "-m", "src", *args]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    return Outcome(done.returncode, done.stdout, done.stderr)


# --- A training ----------------------------------------------------------------------------------------------


def test_fit_from_the_shell_leaves_a_whole_run_and_tells_what_came_out(mnist: Path, tmp_path: Path) -> None:
    outcome = shell(
        "fit", "--config", "configs/lenet5.yaml", *SHORT_WITH_TABS, f"--trainer.default_root_dir={tmp_path}"
    )
    assert outcome.code == 0, outcome.err
    run = tmp_path / "lightning_logs" / "lenet5" / "version_0"
    assert outcome.run == run
    names = [str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()]
    files = {name for name in names if "tfevents" not in name and not name.startswith("test/")}
    assert files == {
        ".lock",
        "answers.npz",
        "config.yaml",
        "checkpoints/last.ckpt",
        "accuracy.png",
        "loss.png",
        "results.json",
    }
    assert "Epoch 1/1: val_loss " in outcome.out and "train_accuracy " in outcome.out

    results = json.loads((run / "results.json").read_text())
    assert {key: results[key] for key in ("model", "parameters", "epochs", "seed")} == {
        "model": "LeNet5",
        "parameters": 545_546,
        "epochs": 1,
        "seed": 0,
    }
    assert 0 < results["train_seconds"] < 60

    # The figures are those of the checkpoint, by an evaluation of our own.
    network = LeNet5().eval()
    network.load_state_dict(load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"])
    test = MNIST(mnist, train=False)
    with torch.no_grad():
        logits_NK = network((test.data.unsqueeze(1) / 255 - 0.1307) / 0.3081)
    errors = int((logits_NK.argmax(1) != test.targets).sum())
    loss = torch.nn.functional.cross_entropy(logits_NK, test.targets).item()
    assert results["test"] == {
        "loss": pytest.approx(loss, rel=1e-4),
        "accuracy": pytest.approx(1 - errors / 10_000),
        "errors": errors,
        "images": 10_000,
    }
    *_, first, time, where, curves = outcome.out.strip().splitlines()
    accuracy = f"{1 - errors / 10_000:.2%}"
    assert first == f"LeNet5: test accuracy {accuracy} ({errors:,} errors in 10,000 images), loss {loss:.4f}"
    assert re.match(r"Epochs: 1, in 0 min \d+ s", time)
    assert where.split() == ["Run:", str(run)]
    assert "tensorboard --host localhost --logdir" in curves and str(tmp_path / "lightning_logs") in curves


def test_command_line_overrides_the_config(cli: RunCLI) -> None:
    overrides = ("--model.lr=0.002", "--data.batch_size=32", "--seed_everything=7")
    limits = (*SHORT, "--trainer.limit_test_batches=2")
    outcome = cli("fit", "--config=configs/cnn.yaml", "--config=configs/published.yaml", *limits, *overrides)
    assert outcome.code == 0, outcome.err
    config = yaml.safe_load((outcome.run / "config.yaml").read_text())
    assert config["model"]["class_path"] == "src.models.CNN"
    assert config["model"]["init_args"]["lr"] == 0.002
    assert (config["data"]["init_args"]["batch_size"], config["data"]["init_args"]["normalize"]) == (32, False)
    assert (config["seed_everything"], config["trainer"]["max_epochs"]) == (7, 1)
    again = cli("fit", f"--config={outcome.run / 'config.yaml'}")
    assert again.code == 0, again.err
    assert again.run == outcome.run.with_name("version_1")
    weights = [load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (outcome.run, again.run)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(("name", "epochs"), [("lenet5", 30), ("cnn", 12)])
def test_configs_are_the_published_recipes(name: str, epochs: int) -> None:
    text = (ROOT / "configs" / f"{name}.yaml").read_text()
    assert len(text.splitlines()) <= 12
    config = yaml.safe_load(text)
    assert config["trainer"] == {"max_epochs": epochs}
    assert config["data"] == {"batch_size": 128}
    assert config["model"]["init_args"] == {"lr": 1e-3, "eps": 1e-7}


@pytest.mark.parametrize("recipe", ["one-epoch", "fast", "accurate"])
@pytest.mark.parametrize(("name", "parameters", "published"), [("lenet5", 545_546, 30), ("cnn", 1_199_882, 12)])
def test_recipes_train_the_same_networks(cli: RunCLI, name: str, parameters: int, published: int, recipe: str) -> None:
    config = f"configs/{name}-{recipe}.yaml"
    epochs = {"one-epoch": 1, "fast": 2, "accurate": published}[recipe]
    assert yaml.safe_load((ROOT / config).read_text())["trainer"] == {"max_epochs": epochs}
    outcome = cli("fit", f"--config={config}", *SHORT, "--trainer.limit_test_batches=2")
    assert outcome.code == 0, outcome.err
    assert outcome.run.parent.name == name
    assert json.loads((outcome.run / "results.json").read_text())["parameters"] == parameters
    settings = yaml.safe_load((outcome.run / "config.yaml").read_text())
    schedule = settings["lr_scheduler"] or settings["model"]["init_args"]["schedule"]
    assert schedule == "one_cycle" or schedule["class_path"].endswith(".OneCycleLR")
    data = settings["data"]["init_args"]
    assert (data["max_shift"] or data["elastic"]) and data["val_size"] == 0


def test_the_seed_alone_decides_the_weights(cli: RunCLI) -> None:
    limits = (*SHORT, "--data.batch_size=32", "--trainer.limit_test_batches=2")
    runs = [cli("fit", "--model=CNN", *limits, f"--seed_everything={seed}").run for seed in (0, 0, 1)]
    first, again, other = (load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in runs)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert not torch.equal(other["network.conv1.weight"], first["network.conv1.weight"])


def test_held_out_images_select_the_best_epoch(cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    step: Any = LeNet5.validation_step

    def blind_in_the_third_epoch(self: LeNet5, batch: Any, batch_idx: int) -> None:
        step(self, (batch[0] * (self.current_epoch < 2), *batch[1:]), batch_idx)

    monkeypatch.setattr(LeNet5, "validation_step", blind_in_the_third_epoch)
    short = ("--trainer.max_epochs=3", "--trainer.limit_train_batches=15", "--trainer.limit_test_batches=2")
    outcome = cli("fit", "--model=LeNet5", "--data.val_size=2000", "--data.batch_size=32", *short, CURVES_ALONE)
    assert outcome.code == 0, outcome.err
    curve = list(json.loads((outcome.run / "results.json").read_text())["curves"]["accuracy"]["validation"].values())
    best, last = (outcome.run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    assert [load_checkpoint(path)["epoch"] for path in (best, last)] == [curve.index(max(curve)), 2]
    assert curve.index(max(curve)) < 2
    said = cli("validate", f"--ckpt_path={best}").out
    assert f"validation accuracy {max(curve):.2%}" in said and "in 2,000 images" in said


def test_trainer_without_logger_bar_or_checkpoints(cli: RunCLI, tmp_path: Path) -> None:
    off = ("--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false")
    for switches in (off, ("--trainer.fast_dev_run=true",), ("--trainer.barebones=true",)):
        outcome = cli("fit", "--model=LeNet5", *SHORT, *switches, "--trainer.limit_test_batches=2")
        assert outcome.code == 0, outcome.err
        assert "test accuracy" in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_overfit_batches_learns_one_batch_by_heart(cli: RunCLI) -> None:
    few = ("--trainer.overfit_batches=1", "--trainer.max_epochs=40", "--data.batch_size=32")
    outcome = cli("fit", "--model=LeNet5", *few, CURVES_ALONE, "--trainer.limit_test_batches=2")
    assert outcome.code == 0, outcome.err
    accuracy = json.loads((outcome.run / "results.json").read_text())["curves"]["accuracy"]["train"]
    assert accuracy["40"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lenet5", "cnn"])
def test_two_epochs_come_near_to_the_published_accuracy(cli: RunCLI, name: str) -> None:
    outcome = cli("fit", f"--config=configs/{name}-fast.yaml")
    results = json.loads((outcome.run / "results.json").read_text())
    assert results["test"]["accuracy"] > 0.99
    assert results["curves"]["loss"]["train"]["2"] < results["curves"]["loss"]["train"]["1"] / 2


def test_cnn_learns_in_100_steps(cli: RunCLI) -> None:
    steps = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=100")
    limits = ("--trainer.limit_val_batches=2", "--trainer.limit_test_batches=60", CURVES_ALONE)
    outcome = cli("fit", "--config=configs/cnn.yaml", "--data.batch_size=32", *steps, *limits)
    assert json.loads((outcome.run / "results.json").read_text())["test"]["accuracy"] > 0.85


def test_two_trainings_at_once_in_new_folders(tmp_path: Path) -> None:
    command = ["fit", "--model=LeNet5", *SHORT, "--trainer.limit_test_batches=2"]
    command += [f"--trainer.default_root_dir={tmp_path}", f"--data.data_dir={tmp_path / 'data'}"]
    both = [Fork(tmp_path, *command) for _ in range(2)]
    outputs = [training.finish() for training in both]
    runs = sorted((tmp_path / "lightning_logs" / "lenet5").iterdir())
    assert [run.name for run in runs] == ["version_0", "version_1"]
    assert all((run / "results.json").exists() for run in runs)
    assert sum("Downloading MNIST" in output for output in outputs) == 1


# --- A network of the user's own -----------------------------------------------------------------------------


@pytest.fixture
def my_network(tmp_path: Path) -> Path:
    """The folder of my_network.py, exactly as it stands in docs/extend.md, but for a mark left by its import."""
    (code,) = re.findall(r"```python\n(# my_network\.py\n.*?)```", (ROOT / "docs" / "extend.md").read_text(), re.DOTALL)
    folder = tmp_path / "modules"
    folder.mkdir()
    mark = f"\nfrom pathlib import Path\n\nPath({str(tmp_path / 'imported')!r}).touch()\n"
    (folder / "my_network.py").write_text(code + mark)
    return folder


def test_own_network_trains_and_is_never_imported_by_a_checkpoint(my_network: Path, tmp_path: Path) -> None:
    def fork(*args: str) -> Outcome:
        return Fork(tmp_path, *args, env={"PYTHONPATH": str(my_network)}).wait()

    where = f"--trainer.default_root_dir={tmp_path}"
    args = ("fit", "--model", "my_network.MyNet", "--model.width=32", *SHORT, where)
    outcome = fork(*args)
    assert outcome.code == 0, outcome.err
    assert outcome.run == tmp_path / "lightning_logs" / "mynet" / "version_0"
    checkpoint = outcome.run / "checkpoints" / "last.ckpt"
    (tmp_path / "imported").unlink()

    refused = fork("test", "--ckpt_path", str(checkpoint))
    assert refused.code == 1
    assert "contains my_network.MyNet" in refused.err and "--model my_network.MyNet" in refused.err
    assert not (tmp_path / "imported").exists()

    named = fork("test", "--model", "my_network.MyNet", "--ckpt_path", str(checkpoint))
    assert named.code == 0, named.err
    results = json.loads((outcome.run / "results.json").read_text())
    assert f"({results['test']['errors']:,} errors" in named.out


# --- What a user can get wrong -------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, mnist: Path) -> dict[str, Path]:
    """Files that a user could name by mistake."""
    contents = {
        "not_yaml": "model: [LeNet5\n",
        "text": "just a line of text\n",
        "bad_trainer_key": "model: LeNet5\ntrainer:\n  max_epochz: 3\n",
        "bad_model_key": "model:\n  class_path: LeNet5\n  init_args:\n    lrr: 3\n",
        "bad_key": "modell: LeNet5\n",
        "empty": "",
    }
    paths = {name: tmp_path / f"{name}.yaml" for name in contents}
    for name, path in paths.items():
        path.write_text(contents[name])
    raw = tmp_path / "damaged" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (mnist / "MNIST" / "raw").glob("t*"):
        shutil.copy(file, raw)
    labels = raw / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1])
    return paths | {"damaged": tmp_path / "damaged", "missing": tmp_path / "none"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "subcommand"),
        ("fitt", "invalid choice: 'fitt'"),
        ("fit", "Name a network"),
        ("fit --model Nonsense", "Nonsense is not a network.*Choose LeNet5 or CNN"),
        ("fit --model nonsense.Net", "nonsense.Net is not a network.*No module named 'nonsense'"),
        ("fit --model torch.nn.Linear", "torch.nn.Linear is not a network"),
        ("fit --model Classifier", "Classifier is not a network.*abstract"),
        ("fit --model.lr 1", "Option 'lr' is not accepted"),
        ("fit --model LeNet5 --model.lrr 3", "lrr"),
        ("fit --model LeNet5 --model.lr -1", "lr is -1.0; it must be positive"),
        ("fit --model LeNet5 --model.eps 0", "eps is 0.0"),
        ("fit --model LeNet5 --model.betas [0.9,1.0]", "betas are .*0.9, 1.0.*below 1"),
        ("fit --model LeNet5 --model.label_smoothing 1", "label_smoothing is 1.0; it must be"),
        ("fit --model LeNet5 --seed_everything -1", "--seed_everything is -1"),
        ("fit --model LeNet5 --seed_everything 4294967296", "--seed_everything is 4294967296"),
        ("fit --model LeNet5 --model.lr fast", "--model.lr fast is not valid: expected float"),
        ("fit --model LeNet5 --trainer.max_epoch 3", "max_epoch"),
        ("fit --model LeNet5 --trainer.max_epochs many", "--trainer.max_epochs many is not valid: expected int"),
        ("fit --model LeNet5 --trainer.max_epochs -5", "--trainer.max_epochs is -5"),
        ("fit --model LeNet5 --trainer.max_epochs 0", "--trainer.max_epochs is 0"),
        ("fit --model LeNet5 --trainer.accelerator warp", "accelerator"),
        ("fit --model LeNet5 --trainer.strategy warp", "strategy"),
        ("fit --model LeNet5 --trainer.devices 0 --trainer.accelerator cpu", "devices"),
        ("fit --model LeNet5 --data.batch_size 1.5", "--data.batch_size 1.5 is not valid: expected int"),
        ("fit --model LeNet5 --data.batch_size -3", "batch_size is -3"),
        ("fit --model LeNet5 --data.val_size 60000", "val_size is 60000"),
        ("fit --model LeNet5 --data.data_dir {text}", "data folder.*--data.data_dir|can't be read"),
        ("fit --model LeNet5 --data.data_dir {damaged}", "t10k-labels-idx1-ubyte is damaged.*Delete it"),
        ("fit --config {missing}", "does not exist.*none"),
        ("fit --config {not_yaml}", "not_yaml.yaml|parsing"),
        ("fit --config {text}", "config"),
        ("fit --config {empty}", "config|network"),
        ("fit --config {bad_trainer_key}", "trainer.max_epochz"),
        ("fit --config {bad_model_key}", "lrr"),
        ("fit --config {bad_key}", "modell"),
        ("fit --model LeNet5 --ckpt_path {missing}", "There is no checkpoint .*none"),
        ("fit --model LeNet5 --ckpt_path last", "--ckpt_path last needs a run"),
        ("test", "Name a checkpoint"),
        ("predict --model LeNet5", "Name a checkpoint"),
        ("test --ckpt_path {missing}", "There is no checkpoint .*none"),
        ("test --ckpt_path {empty}", "empty or damaged"),
        ("test --ckpt_path {text}", "empty or damaged"),
        ("test --ckpt_path {damaged}", "Cannot read"),
        ("test --ckpt_path http://127.0.0.1:9/last.ckpt", "is not a path on this machine"),
    ],
)
def test_mistake_gets_a_plain_answer(refused: Refused, files: dict[str, Path], args: str, message: str) -> None:
    assert re.search(message, refused(*args.format(**files).split()).replace("\n", " "))


def command_line_without_mirrors(*args: str) -> int:
    MNIST.mirrors = ["http://127.0.0.1:9/"]
    return command_line(*args)


def test_no_source_of_data_in_reach(tmp_path: Path) -> None:
    args = ("fit", "--model=LeNet5", f"--data.data_dir={tmp_path}")
    ended = Fork(tmp_path, *args, function=command_line_without_mirrors, env={"PATH": ""}).wait()
    assert ended.code == 1
    for part in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte", str(tmp_path / "MNIST" / "raw"), "no npm"):
        assert part in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("command", ["fit", "test"])
def test_help_reads_well(cli: RunCLI, command: str) -> None:
    outcome = cli(command, "--help")
    assert outcome.code == 0
    assert "--data.help" in outcome.out
    of_data = cli(command, "--data.help").out
    assert "--data.val_size" in of_data and "Number of training images held out" in of_data
    assert HELP[command] in outcome.out
    overview = " ".join(cli("--help").out.split())
    assert all(f"{name} {text}" in overview for name, text in HELP.items())


def test_a_log_file_gets_a_line_for_each_epoch(cli: RunCLI) -> None:
    outcome = cli("fit", "--model=LeNet5", *SHORT, "--trainer.max_epochs=2", "--trainer.limit_test_batches=2")
    lines = [line for line in outcome.out.splitlines() if line.startswith("Epoch ")]
    assert [line.partition(":")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2"]
    assert all(re.search(r"val_accuracy [\d.]+, train_loss [\d.]+", line) for line in lines)
    assert "\r" not in outcome.out and "\x1b" not in outcome.out
