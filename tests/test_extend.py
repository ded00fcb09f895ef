"""docs/extend.md, taken at its word: its files are written, its commands run, as they stand there."""

import importlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from lightning import Trainer
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from src.models import Classifier
from tests.conftest import ROOT, SHORT, Outcome, RunCLI

PAGE = (ROOT / "docs" / "extend.md").read_text()
FILES = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"^    (python -m src .*)$", PAGE, re.MULTILINE)
FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
LETTERS = list("ABCDEFGHIJ")


@pytest.fixture(scope="module")
def checkout(mnist: Path, letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the files of the page, all trainings limited to five steps in their configs.

    A small data set stands for Fashion-MNIST.
    """
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "src").symlink_to(ROOT / "src")
    (folder / "letters").symlink_to(letters)
    (folder / "data" / "FashionMNIST").mkdir(parents=True)
    (folder / "data" / "FashionMNIST" / "raw").symlink_to(letters)
    (folder / "data" / "MNIST").symlink_to(mnist / "MNIST")
    (folder / "configs").mkdir()
    configs = {path: (ROOT / path).read_text() for path in ("configs/lenet5.yaml", "configs/cnn.yaml")} | FILES
    for name, text in configs.items():
        if name.endswith(".yaml"):
            config = yaml.safe_load(text)
            config["trainer"] |= {"max_epochs": 1, "limit_train_batches": 5}
            text = yaml.safe_dump(config)
        (folder / name).write_text(text)
    write_photos(folder)
    return folder


def run(checkout: Path, command: str) -> Outcome:
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(shlex.split(command), cwd=checkout, env=env, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_what_one_writes_is_short() -> None:
    data = {"folder_data.py", "npz_data.py", "csv_data.py"}
    networks = {"my_network.py", "my_network.yaml", "my_loss.py", "weighted.py", "lit_classifier.py", "photo_net.py"}
    assert set(FILES) == networks | {"letters.yaml", "train_photos.py", "my_data.py"} | data
    assert len((FILES["my_network.py"] + FILES["my_network.yaml"]).splitlines()) < 40
    for name in data:
        assert len([line for line in FILES[name].splitlines() if line]) <= 12


def write_photos(folder: Path) -> None:
    """Photos of two classes: mostly red, of different sizes, and mostly blue."""
    random = np.random.default_rng(0)
    for split, number in (("train", 40), ("test", 10)):
        for channel, name in ((0, "apple"), (2, "sky")):
            (folder / "photos" / split / name).mkdir(parents=True)
            for photo in range(number):
                pixels = random.integers(0, 100, (50 + photo, 80, 3))
                pixels[..., channel] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / split / name / f"{photo}.jpg")


def write_npz(folder: Path) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, number in (("train", 60), ("test", 30)):
        arrays[f"{split}_images"] = random.integers(0, 256, (number, 28, 28, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(number, dtype=np.uint8)[:, None] % 8
    np.savez(folder / "bloodmnist.npz", **arrays)


def write_csv(folder: Path) -> None:
    random = np.random.default_rng(0)
    rows = np.column_stack([np.arange(1100) % 10, random.integers(0, 256, (1100, 784))])
    header = ",".join(["label", *(f"pixel{n}" for n in range(784))])
    np.savetxt(folder / "train.csv", rows, "%d", delimiter=",", header=header, comments="")


class Flat(Classifier):
    def __init__(self, shape: tuple[int, ...], n_classes: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), n_classes))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.network(x_NCHW)


@pytest.mark.parametrize(
    ("module", "name", "write", "shape", "classes", "images"),
    [
        ("folder_data", "Photos", write_photos, (3, 64, 64), ["apple", "sky"], (80, 20)),
        ("npz_data", "Blood", write_npz, (3, 28, 28), list("01234567"), (60, 30)),
        ("csv_data", "Kaggle", write_csv, (1, 28, 28), list("0123456789"), (100, 1000)),
    ],
)
def test_each_data_module_trains_in_a_plain_trainer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    name: str,
    write: Callable[[Path], None],
    shape: tuple[int, ...],
    classes: list[str],
    images: tuple[int, int],
) -> None:
    write(tmp_path)
    (tmp_path / f"{module}.py").write_text(FILES[f"{module}.py"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    data = getattr(importlib.import_module(module), name)(batch_size=16, max_shift=2, max_rotation=10, elastic=0.5)
    network = Flat(shape, len(classes))
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    trainer.fit(network, datamodule=data)
    trainer.test(network, datamodule=data)
    assert (data.shape, data.classes, len(data.train[1]), len(data.test[1])) == (shape, classes, *images)
    if name == "Blood":  # the pixels are where they were
        assert np.array_equal(data.test[0][3, 2], np.load("bloodmnist.npz")["test_images"][3, :, :, 2])
    if name == "Kaggle":
        last = [int(value) for value in Path("train.csv").read_text().splitlines()[-1].split(",")]
        assert [data.test[1][-1], *data.test[0][-1].flatten()] == last


def test_the_program_of_the_page_learns(tmp_path: Path) -> None:
    write_photos(tmp_path)
    for name in ("folder_data.py", "photo_net.py", "train_photos.py"):
        (tmp_path / name).write_text(FILES[name])
    (tmp_path / "src").symlink_to(ROOT / "src")
    out = run(tmp_path, "python train_photos.py").out
    accuracy = re.search(r"test_accuracy\W+([\d.]+)", out)
    assert accuracy and float(accuracy[1]) > 0.9, out


@pytest.mark.parametrize(
    "options",
    [
        "--model=my_loss.Margin",
        "--model=lit_classifier.LitClassifier",
        f"--model=weighted.Weighted --model.class_weights={[1] * 9 + [2]}".replace(", ", ","),
        "--model=CNN --data=my_data.MyData --data.batch_size=128",
    ],
)
def test_a_class_of_the_page_trains(cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    name = re.findall(r"=(\w+)\.\w+", options)[0] + ".py"
    (tmp_path / name).write_text(FILES[name])
    monkeypatch.syspath_prepend(tmp_path)
    outcome = cli("fit", *options.split(), *SHORT, "--trainer.limit_test_batches=2")
    assert outcome.code == 0, outcome.err


def test_photos_train_on_the_command_line(cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path)
    for name in ("folder_data.py", "photo_net.py"):
        (tmp_path / name).write_text(FILES[name])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (command,) = [command for command in COMMANDS if "photo_net" in command]
    outcome = cli(*shlex.split(command)[3:], "--trainer.max_epochs=3")
    assert outcome.code == 0, outcome.err
    results = json.loads((outcome.run / "results.json").read_text())
    assert (results["test"]["images"], results["test"]["errors"]) == (20, 0)
    with np.load(outcome.run / "answers.npz") as answers:
        assert answers["classes"].tolist() == ["apple", "sky"] and answers["shape"].tolist() == [3, 64, 64]
    events = EventAccumulator(str(outcome.run / "test"), {"images": 0}).Reload()
    assert {"pictures/confusion", "pictures/mistakes"} <= set(events.Tags()["images"])
    exported = cli(
        "export",
        "--model=photo_net.Small",
        "--data=folder_data.Photos",
        f"--ckpt_path={outcome.run / 'checkpoints' / 'last.ckpt'}",
    )
    assert exported.code == 0, exported.err


@pytest.mark.slow
def test_the_whole_page(checkout: Path) -> None:
    said = {command: run(checkout, command).out for command in COMMANDS}
    assert len(said) == 16

    # The third network is in the charts of the others, and in the comparison.
    for network in ("lenet5", "mynet"):
        for curve in ("train", "validation"):
            events = EventAccumulator(str(checkout / "lightning_logs" / network / "version_0" / curve)).Reload()
            assert [event.step for tag in ("accuracy", "loss") for event in events.Scalars(f"curves/{tag}")] == [1, 1]
    report = json.loads((checkout / "comparison" / "lenet5-vs-cnn-vs-mynet" / "report.json").read_text())
    assert [(network["name"], len(network["runs"])) for network in report["networks"]] == [
        ("LeNet5", 2),
        ("CNN", 2),
        ("MyNet", 2),
    ]
    assert report["networks"][2]["parameters"] == 784 * 64 + 64 + 64 * 10 + 10
    tested = next(command for command in COMMANDS if command.startswith("python -m src test"))
    assert "MyNet: test accuracy" in said[tested]
    assert (checkout / "lightning_logs" / "mynet" / "version_0" / "model.onnx").exists()

    # Both data sets have their names wherever an answer is read.
    report = json.loads((checkout / "comparison" / "cnn-vs-lenet5" / "report.json").read_text())
    assert report["classes"] == LETTERS
    for logs, names in (("letters_runs", LETTERS), ("fashion", FASHION)):
        predicted = (checkout / logs / "lightning_logs" / "lenet5" / "version_0" / "predictions.csv").read_text()
        answers = [line.split(",")[1] for line in predicted.splitlines()[1:]]
        assert len(answers) == report["images"] == 200 and set(answers) <= set(names)
    exported = checkout / "fashion" / "lightning_logs" / "lenet5" / "version_0" / "model.onnx"
    about = onnxruntime.InferenceSession(exported).get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == FASHION
