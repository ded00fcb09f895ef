"""The relatives of MNIST by name: Fashion-MNIST, KMNIST, QMNIST and three sets of EMNIST, through torchvision.

Sources: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST", 2017; T. Clanuwat et al., "Deep Learning for Classical
Japanese Literature", 2018; C. Yadav, L. Bottou, "Cold Case: The Lost MNIST Digits", 2019; G. Cohen et al., "EMNIST:
Extending MNIST to handwritten letters", 2017.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from src.data.source import FAILED, Split, exists, from_mirrors, load, parse, usable
from src.system.errors import UserError
from src.system.files import locked

Dataset = Literal["mnist", "fashion_mnist", "kmnist", "qmnist", "emnist_letters", "emnist_balanced", "emnist_digits"]
DIGITS = [str(digit) for digit in range(10)]
CLASSES = {"fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "qmnist": "QMNIST"}  # of torchvision; others are EMNIST
HANDWRITTEN_AS_MNIST = ("mnist", "qmnist", "emnist_letters", "emnist_balanced", "emnist_digits")


def class_names(dataset: Dataset) -> list[str]:
    """Return the names of the classes, in the order of the labels. A letter of EMNIST may stand for both cases."""
    from torchvision.datasets import EMNIST

    if dataset in ("fashion_mnist", "kmnist"):
        return list(_torchvision(dataset).classes)
    if dataset in ("emnist_letters", "emnist_balanced"):
        return [name for name in EMNIST.classes_split_dict[dataset.removeprefix("emnist_")] if name != "N/A"]
    return DIGITS


def read_relative(data_dir: Path, dataset: Dataset, split: Split) -> tuple[Tensor, Tensor]:
    """Read one split from the folder that torchvision uses, such as ``FashionMNIST/raw``, plain or ``.gz``.

    Returns:
        Images (N, 28, 28) as uint8, upright, and labels (N,) as int64, from 0.

    Raises:
        UserError: A file is missing, can't be read or is damaged.
    """
    images, labels = (load(path) for path in _paths(data_dir, dataset, split))
    images_NHW = parse(*images, dimensions=3)
    if dataset == "qmnist":  # beside the class: writer, source and so on
        return images_NHW, parse(*labels, dimensions=2)[:, 0].long()
    labels_N = parse(*labels, dimensions=1).long()
    if dataset == "emnist_letters":
        labels_N -= 1
    return images_NHW.mT.contiguous() if dataset.startswith("emnist") else images_NHW, labels_N


def fetch_relative(data_dir: Path, dataset: Dataset, splits: Sequence[Split]) -> None:
    """Download the missing files of these splits from torchvision's mirrors, with its checksums.

    A file gets its final name only when all of them are whole. Several processes may call it at once: one downloads and
    the others wait.

    Raises:
        UserError: The folder can't be used, or no mirror can be reached.
    """

    def missing() -> list[Split]:
        return [split for split in splits if not all(map(exists, _paths(data_dir, dataset, split)))]

    if not missing():
        return
    raw = data_dir / _torchvision(dataset).__name__ / "raw"
    with usable(data_dir):
        raw.mkdir(parents=True, exist_ok=True)
        with locked(raw / ".lock"), tempfile.TemporaryDirectory(dir=raw) as folder:
            for split in splits:
                if split not in missing():  # with the first split, most mirrors give all files
                    continue
                try:
                    downloaded = _download(dataset, split, Path(folder))
                except FAILED as error:
                    names = ", ".join(path.name for one in splits for path in _paths(data_dir, dataset, one))
                    cause = " ".join(str(error).split())[:200]
                    raise UserError(
                        f"{dataset} can't be downloaded ({cause}). "
                        f"Put {names} (plain or .gz) into {raw}, and run again."
                    ) from None
                for file in downloaded:
                    if not exists(raw / file.name):
                        file.replace(raw / file.name)


def _download(dataset: Dataset, split: Split, folder: Path) -> list[Path]:
    """Download at least one split into a folder. Returns the IDX files; EMNIST has those of all its sets."""
    print(f"Downloading {dataset} from torchvision's mirrors …", flush=True)
    which = {"split": dataset.removeprefix("emnist_")} if dataset.startswith("emnist") else {}
    raw = from_mirrors(_torchvision(dataset), folder, train=split == "train", **which)
    return [file for file in raw.iterdir() if file.suffix not in (".gz", ".zip")]


def _torchvision(dataset: Dataset) -> Any:
    import torchvision

    return getattr(torchvision.datasets, CLASSES.get(dataset, "EMNIST"))


def _paths(data_dir: Path, dataset: Dataset, split: Split) -> tuple[Path, Path]:
    """Return the files of the images and of the labels."""
    raw = data_dir / _torchvision(dataset).__name__ / "raw"
    if dataset in ("fashion_mnist", "kmnist"):
        return raw / f"{split}-images-idx3-ubyte", raw / f"{split}-labels-idx1-ubyte"
    stem = f"{dataset.replace('_', '-')}-{split.replace('t10k', 'test')}"
    kind = "idx2-int" if dataset == "qmnist" else "idx1-ubyte"
    return raw / f"{stem}-images-idx3-ubyte", raw / f"{stem}-labels-{kind}"
