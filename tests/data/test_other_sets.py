"""Another data set in MNIST's format is read as it is, and is never confused with MNIST."""

import json
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from src.data import MNISTDataModule
from src.data.source import fetch_mnist, read_other
from src.system.errors import UserError
from tests.conftest import LETTERS, Refused, RunCLI, train, write_idx

CLASSES = f"--data.classes={json.dumps(LETTERS)}"


@pytest.fixture
def copy(letters: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(letters, tmp_path / "copy"))


@pytest.fixture(scope="module")
def letters_run(letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of LeNet5 on the letters."""
    folder = tmp_path_factory.mktemp("letters_run")
    train(folder, "--model=LeNet5", f"--data.data_dir={letters}", CLASSES, "--trainer.max_epochs=1")
    return folder / "lightning_logs" / "lenet5" / "version_0"


# --- The files ---------------------------------------------------------------------------------------------


def test_reads_the_files_as_they_are(mnist: Path, letters: Path) -> None:
    for split, train_images, number in (("train", True, 600), ("t10k", False, 200)):
        images_NHW, labels_N = read_other(letters, split)  # type: ignore[arg-type]
        reference = MNIST(mnist, train=train_images)
        assert torch.equal(images_NHW, reference.data[:number])
        assert torch.equal(labels_N, 9 - reference.targets[:number])


def cut(folder: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])


def cut_archive(folder: Path) -> None:
    path = folder / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])


def other_type(folder: Path) -> None:
    path = folder / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[2] = 0x0D  # floats
    path.write_bytes(content)


def swapped(folder: Path) -> None:
    shutil.copy(folder / "train-labels-idx1-ubyte.gz", folder / "t10k-labels-idx1-ubyte.gz")


def other_size(folder: Path) -> None:
    write_idx(folder / "train-images-idx3-ubyte", np.zeros((600, 32, 32)))


def too_many_labels(folder: Path) -> None:
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.arange(600) % 11)


def empty(folder: Path) -> None:
    for name, shape in (("t10k-images-idx3-ubyte", (0, 28, 28)), ("t10k-labels-idx1-ubyte.gz", (0,))):
        write_idx(folder / name, np.zeros(shape))


def missing(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (cut, "t10k-images-idx3-ubyte is damaged, or not in MNIST's format"),
        (cut_archive, r"train-labels-idx1-ubyte.gz is damaged"),
        (other_type, "t10k-images-idx3-ubyte is damaged, or not in MNIST's format"),
        (swapped, "t10k-images-idx3-ubyte has 200 images, but .*t10k-labels-idx1-ubyte.gz has 600 labels"),
        (other_size, r"load\('test'\) has images of shape \(1, 28, 28\), but the others have \(1, 32, 32\)"),
        (too_many_labels, r"load\('train'\) has the label 10; with 10 classes, labels are 0 … 9"),
        (empty, "t10k-images-idx3-ubyte is damaged"),
        (missing, "t10k-labels-idx1-ubyte is missing, and there is no t10k-labels-idx1-ubyte.gz"),
    ],
)
def test_an_error_before_training_names_the_wrong_file(
    copy: Path, mistake: Callable[[Path], None], message: str
) -> None:
    mistake(copy)
    with pytest.raises(UserError, match=message):
        MNISTDataModule(str(copy), classes=LETTERS).prepare_data()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*args: object) -> None:
        raise AssertionError("something is downloaded")

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setenv("PATH", "")


@pytest.mark.usefixtures("offline")
def test_nothing_is_downloaded_instead_of_another_set(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mistyped/train-images-idx3-ubyte is missing.*--data.data_dir itself"):
        MNISTDataModule(str(tmp_path / "mistyped"), classes=LETTERS).prepare_data()
    with pytest.raises(
        UserError, match="itself contains train-images-idx3-ubyte.*name its classes with --data.classes"
    ):
        fetch_mnist(copy)
    assert not (tmp_path / "mistyped").exists() and not (copy / "MNIST").exists()


def test_another_set_in_the_folder_of_mnist_is_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "MNIST").mkdir(parents=True)
    copy.rename(tmp_path / "data" / "MNIST" / "raw")
    with pytest.raises(UserError, match="it differs from the published file"):
        fetch_mnist(tmp_path / "data")


def test_yaml_reads_some_names_as_numbers_or_booleans() -> None:
    assert MNISTDataModule(classes=[3, 7.5, "x"]).classes == ["3", "7.5", "x"]
    with pytest.raises(UserError, match=r"\[False, True\]: YAML reads words such as yes.*quotes"):
        MNISTDataModule(classes=[False, True])


# --- At the command line -----------------------------------------------------------------------------------


def test_predictions_have_the_names_of_the_classes(cli: RunCLI, letters: Path, letters_run: Path) -> None:
    results = json.loads((letters_run / "results.json").read_text())
    assert results["test"]["images"] == 200
    outcome = cli("predict", f"--ckpt_path={letters_run / 'checkpoints' / 'last.ckpt'}")
    assert outcome.code == 0, outcome.err
    rows = (letters_run / "predictions.csv").read_text().splitlines()[1:]
    names_N = np.array(LETTERS)[read_other(letters, "t10k")[1]]
    wrong = sum(row.split(",")[1] != name for row, name in zip(rows, names_N, strict=True))
    assert wrong == results["test"]["errors"] < 190


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            "fit --model LeNet5 --data.data_dir {letters} --data.classes [A,B]",
            r"load\('train'\) has the label 4; with 2 classes, labels are 0 … 1",
        ),
        ("fit --model LeNet5 --data.data_dir {letters} --data.classes [A,A]", "must be two or more different names"),
        ("fit --model LeNet5 --data.data_dir {letters} --data.classes []", "must be two or more different names"),
        ("fit --model LeNet5 --data.data_dir {letters} --data.classes 10", "--data.classes 10 is not valid"),
        ("fit --model LeNet5 --data.data_dir {letters}", "itself contains train-images.* name its classes"),
        ("fit --model LeNet5 --data.data_dir {letters} {classes} --data.val_size 600", "must be 0 … 599 of the 600"),
        ("fit --model LeNet5 --data.data_dir {letters}x {classes}", "lettersx?.* is missing"),
        ("test --ckpt_path {mnist_run} --data.data_dir {letters} {classes}", "--data.classes .* contradicts .*None"),
        ("test --ckpt_path {old_run} --data.data_dir {letters} {classes}", "--data.classes .* contradicts .*None"),
        ("test --ckpt_path {letters_run} --data.data_dir {nothing}", "is missing"),
        ("predict --ckpt_path {mnist_run} --also {letters_run}", "has other classes than"),
        ("compare {mnist_run} {letters_run}", "different data sets can't be compared: mnist, and A, B, C"),
    ],
)
def test_a_mistake_ends_in_a_plain_message(
    refused: Refused, letters: Path, letters_run: Path, lenet5_run: Path, tmp_path: Path, args: str, message: str
) -> None:
    checkpoint = Path("checkpoints", "last.ckpt")
    old = torch.load(lenet5_run / checkpoint, weights_only=True)
    del old["datamodule_hyper_parameters"]["classes"]  # as in a checkpoint of a version without other data sets
    torch.save(old, tmp_path / "old.ckpt")
    inside = Path() if args.startswith("compare") else checkpoint
    paths = {"mnist_run": lenet5_run / inside, "letters_run": letters_run / inside, "old_run": tmp_path / "old.ckpt"}
    words = args.format(letters=letters, classes="{classes}", nothing=tmp_path / "none", **paths).split()
    assert re.search(message, refused(*(CLASSES if word == "{classes}" else word for word in words)))
