"""Each relative of MNIST, from small files in its real format on a local mirror; Fashion-MNIST also for real."""

import gzip
import hashlib
import shutil
import string
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torchvision.datasets import EMNIST, QMNIST, FashionMNIST

from src.data import MNISTDataModule
from src.data.family import Dataset
from src.runs.network import TrainedNetwork
from src.system.errors import UserError
from tests.conftest import SHORT, RunCLI, write_idx
from tests.data.test_source import Mirror

FASHION = Path("/usr/share/datasets/fashion-mnist")
LETTERS = list(string.ascii_lowercase)
BALANCED = [*string.digits, *string.ascii_uppercase, *"abdefghnqrt"]  # Cohen et al., 2017, table II
SETS: dict[str, tuple[str, list[str]]] = {
    "fashion_mnist": ("FashionMNIST", FashionMNIST.classes),
    "kmnist": ("KMNIST", ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]),
    "qmnist": ("QMNIST", list(string.digits)),
    "emnist_letters": ("EMNIST", LETTERS),
    "emnist_balanced": ("EMNIST", BALANCED),
    "emnist_digits": ("EMNIST", list(string.digits)),
}
every_set = pytest.mark.parametrize("dataset", SETS)


def images(split: str) -> np.ndarray:
    """60 training and 50 test images, all different and none symmetric."""
    return np.random.default_rng(len(split)).integers(0, 256, (60 if split == "train" else 50, 28, 28))


def labels(split: str, n_classes: int) -> np.ndarray:
    return np.arange(len(images(split))) % n_classes


def archive(path: Path, values: np.ndarray) -> tuple[str, str]:
    """Write an IDX file of bytes, or of 4-byte numbers in its name's "int", as .gz. Returns its name and MD5."""
    if "int" in path.name:
        content = struct.pack(f">HBB{values.ndim}I", 0, 12, values.ndim, *values.shape) + values.astype(">i4").tobytes()
        path.write_bytes(gzip.compress(content))
    else:
        write_idx(path, values)
    return path.name, hashlib.md5(path.read_bytes()).hexdigest()


def put_on(mirror: Mirror, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill the mirror with a set, as its authors publish it, and make torchvision use it."""
    folder, (name, classes) = mirror.folder, SETS[dataset]
    if name == "EMNIST":
        with zipfile.ZipFile(folder / "gzip.zip", "w") as file:
            for one, lowest in (("letters", 1), ("balanced", 0), ("digits", 0)):
                for split in ("train", "test"):
                    labels_N = labels(split, len(SETS[f"emnist_{one}"][1])) + lowest
                    for kind, values in (("images-idx3", images(split).transpose(0, 2, 1)), ("labels-idx1", labels_N)):
                        path = folder / f"emnist-{one}-{split}-{kind}-ubyte.gz"
                        archive(path, values)
                        file.write(path, f"gzip/{path.name}")
                        path.unlink()
        monkeypatch.setattr(EMNIST, "url", f"{mirror.url}gzip.zip")
        monkeypatch.setattr(EMNIST, "md5", hashlib.md5((folder / "gzip.zip").read_bytes()).hexdigest())
    elif name == "QMNIST":
        resources: dict[str, list[tuple[str, str]]] = {}
        for split in ("train", "test"):
            # Beside the class: NIST's partition, writer, index, code of the class, index, and two zeros.
            columns_N8 = np.column_stack([labels(split, 10), *np.full((7, len(images(split))), 70_000)])
            parts = (("images-idx3-ubyte", images(split)), ("labels-idx2-int", columns_N8))
            sums = [archive(folder / f"qmnist-{split}-{kind}.gz", values) for kind, values in parts]
            resources[split] = [(f"{mirror.url}{file}", md5) for file, md5 in sums]
        monkeypatch.setattr(QMNIST, "resources", resources)
    else:
        sums = []
        for split, stem in (("train", "train"), ("test", "t10k")):
            sums.append(archive(folder / f"{stem}-images-idx3-ubyte.gz", images(split)))
            sums.append(archive(folder / f"{stem}-labels-idx1-ubyte.gz", labels(split, len(classes))))
        monkeypatch.setattr(getattr(torchvision.datasets, name), "mirrors", [mirror.url])
        monkeypatch.setattr(getattr(torchvision.datasets, name), "resources", sums)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    (tmp_path / "mirror").mkdir()
    mirror = Mirror(tmp_path / "mirror")
    yield mirror
    mirror.server.shutdown()


def ready(folder: Path, dataset: Any, **settings: Any) -> MNISTDataModule:
    data = MNISTDataModule(str(folder), dataset=dataset, **settings)
    data.prepare_data()
    data.setup("fit")
    return data


@every_set
def test_a_set_is_downloaded_once_and_read_upright_with_labels_from_0(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    put_on(mirror, dataset, monkeypatch)
    name, classes = SETS[dataset]
    data = ready(tmp_path / "data", dataset)
    assert data.classes == classes
    for split, (images_NHW, labels_N) in (("train", data.train), ("test", data.test)):
        assert np.array_equal(images_NHW, images(split)) and images_NHW.dtype == torch.uint8
        assert labels_N.tolist() == labels(split, len(classes)).tolist()
    x_NCHW, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    pixels = images("train") / 255
    assert x_NCHW.mean().item() == pytest.approx(0, abs=1e-5) and x_NCHW.std().item() == pytest.approx(1, abs=1e-4)
    assert (data.mean, data.std) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-12)

    raw = tmp_path / "data" / name / "raw"  # torchvision's folder, which it can read too
    assert all(file.is_file() and (file.suffix == "" or file.name == ".lock") for file in raw.iterdir())
    options = {"split": dataset.removeprefix("emnist_")} if name == "EMNIST" else {}
    assert len(getattr(torchvision.datasets, name)(tmp_path / "data", train=False, **options)) == 50
    mirror.requests.clear()
    ready(tmp_path / "data", dataset)
    assert mirror.requests == []


def test_emnist_is_one_download(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on(mirror, "emnist_letters", monkeypatch)
    ready(tmp_path, "emnist_letters")
    mirror.requests.clear()
    assert len(ready(tmp_path, "emnist_balanced").classes) == 47
    assert mirror.requests == []


@pytest.mark.parametrize("dataset", ["kmnist", "qmnist", "emnist_digits"])
def test_a_wrong_checksum_or_no_mirror_ends_in_one_line(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Dataset
) -> None:
    put_on(mirror, dataset, monkeypatch)
    for file in mirror.folder.iterdir():
        file.write_bytes(file.read_bytes() + b"\0")
    data, raw = MNISTDataModule(str(tmp_path / "data"), dataset=dataset), tmp_path / "data" / SETS[dataset][0] / "raw"
    for missing in (False, True):
        if missing:
            shutil.rmtree(mirror.folder)
        with pytest.raises(UserError) as refused:
            data.prepare_data()
        message = str(refused.value)
        assert message.startswith(f"{dataset} can't be downloaded (") and "\n" not in message
        assert "train-images-idx3-ubyte, " in message and f"(plain or .gz) into {raw}, and run again." in message
        assert [file.name for file in raw.iterdir()] == [".lock"]


def test_files_that_the_user_put_there_are_used_and_kept(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on(mirror, "kmnist", monkeypatch)
    raw = tmp_path / "data" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in mirror.folder.glob("train-*.gz"):
        shutil.copy(file, raw)
    before = {file: file.read_bytes() for file in raw.iterdir()}
    data = ready(tmp_path / "data", "kmnist")
    assert np.array_equal(data.train[0], images("train")) and np.array_equal(data.test[0], images("test"))
    assert {file: file.read_bytes() for file in before} == before
    assert {file.name for file in raw.iterdir()} == {
        ".lock", "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    }  # fmt: skip
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08")
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is damaged, or not in MNIST's format"):
        ready(tmp_path / "data", "kmnist")


@pytest.mark.skipif(not FASHION.exists(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_itself(tmp_path: Path) -> None:
    (tmp_path / "FashionMNIST").mkdir()
    (tmp_path / "FashionMNIST" / "raw").symlink_to(FASHION)
    data = ready(tmp_path, "fashion_mnist")
    assert (len(data.train[1]), len(data.test[1])) == (60_000, 10_000)
    assert data.train[1].bincount().tolist() == [6_000] * 10
    data.preprocess(data.test[0][:1])
    assert (data.mean, data.std) == pytest.approx((0.2860, 0.3530), abs=5e-5)  # as usually given


def test_a_checkpoint_has_the_normalisation_and_the_classes(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: RunCLI
) -> None:
    put_on(mirror, "kmnist", monkeypatch)
    settings = ("--data.dataset=kmnist", f"--data.data_dir={tmp_path / 'data'}")
    outcome = cli("fit", "--model=LeNet5", *settings, *SHORT)
    assert outcome.code == 0, outcome.err
    checkpoint = outcome.run / "checkpoints" / "last.ckpt"
    trained_on = ready(tmp_path / "data", "kmnist").preprocess(torch.arange(256, dtype=torch.uint8).view(1, 16, 16))
    shutil.rmtree(tmp_path / "data")
    trained = TrainedNetwork(checkpoint)  # without the images
    assert trained.datamodule.classes == SETS["kmnist"][1]
    assert torch.equal(trained.datamodule.preprocess(torch.arange(256, dtype=torch.uint8).view(1, 16, 16)), trained_on)


def test_settings_that_contradict_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be used with dataset kmnist"):
        MNISTDataModule(classes=["a", "b"], dataset="kmnist")
    pictures = MNISTDataModule(str(tmp_path), dataset="fashion_mnist")
    pictures.images = [str(tmp_path)]
    with pytest.raises(UserError, match="this does not fit fashion_mnist"):
        pictures.setup("predict")
