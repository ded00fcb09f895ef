import gzip
import os
import shutil
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# `src` is imported inside the functions: pytest-xdist loads this file in a process that runs no test.
from tests.forks import ROOT, Outcome

# Read when torch is imported. With more threads, a process that is forked after a forward pass would hang.
os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # scripts ignore it in processes in the background


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs from all tests but their own: weights are compared bit for bit, on the CPU."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of a GPU where there is none."""
    import torch

    of_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if of_gpu and not torch.cuda.is_available() and os.environ.get("ACCELERATOR") != "cpu":
        config.hook.pytest_deselected(items=of_gpu)
        items[:] = [item for item in items if item not in of_gpu]


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Undo changes of environment variables: Lightning and `--resume auto` pass some on to other processes."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The data folder of this checkout, with MNIST in it."""
    from src.data.source import fetch_mnist

    fetch_mnist(ROOT / "data")
    return ROOT / "data"


@pytest.fixture(scope="session")
def letters(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another data set in MNIST's format: 600 and 200 digits, the label 9 for 0, 8 for 1 and so on, named J … A."""
    from src.data.source import read_mnist

    folder = tmp_path_factory.mktemp("letters")
    for split, number in (("train", 600), ("t10k", 200)):
        images_NHW, labels_N = read_mnist(mnist, split)  # type: ignore[arg-type]
        write_idx(folder / f"{split}-images-idx3-ubyte", images_NHW[:number].numpy())
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", 9 - labels_N[:number].numpy())
    return folder


LETTERS = list("ABCDEFGHIJ")


def write_idx(path: Path, values: np.ndarray) -> None:
    """As on Yann LeCun's page: two zeros, 8 for bytes, the number of dimensions, each size in 4 bytes, the values."""
    content = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


RunCLI = Callable[..., Outcome]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mnist: Path, tmp_path: Path) -> RunCLI:
    """Run the command line in this process (an import of Lightning takes seconds); runs land in `tmp_path`."""
    from src.cli.main import CLI, main

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["src"])

    def run(*args: str) -> Outcome:
        capfd.readouterr()
        trains = args and args[0] in CLI.subcommands() and "--data.help" not in args  # which takes nothing beside it
        where = [f"--trainer.default_root_dir={tmp_path}"] if trains else []
        try:
            code = main([*args, *where])
        except SystemExit as error:
            assert isinstance(error.code, int)
            code = error.code
        return Outcome(code, *capfd.readouterr())

    return run


Refused = Callable[..., str]


@pytest.fixture
def refused(cli: RunCLI, tmp_path: Path) -> Refused:
    """Run a command that must end with an error and change nothing on disk, and return its message of a few lines."""

    def run(*args: str, lines: int = 3) -> str:
        before, runs = files(tmp_path), set(tmp_path.rglob("version_*"))
        outcome = cli(*args)
        assert outcome.code in (1, 2), outcome.err
        assert "Traceback" not in outcome.err
        message = "\n".join(line for line in outcome.err.splitlines() if line.startswith(("error: ", "See: ", "  ")))
        assert 0 < len(message.splitlines()) <= lines and len(message) < 600, outcome.err
        assert files(tmp_path) == before
        assert set(tmp_path.rglob("version_*")) == runs  # no empty folder either
        return message

    return run


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SHORT_WITH_TABS = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=5", "--trainer.limit_val_batches=2")
# TensorBoard's other tabs take longer than a short training. tests/tensorboard has them.
NO_TABS = """{"hparams": false, "texts": false, "graph": false, "mistakes": false, "confusion": false,
    "answers": false, "filters": false, "histograms": false, "pr_curves": false, "projector": false}"""
CURVES_ALONE = f"--tensorboard={NO_TABS}"
SHORT = (*SHORT_WITH_TABS, CURVES_ALONE)


def train(folder: Path, *args: str) -> None:
    """Fit in this process; runs land in `folder`."""
    from src.cli.main import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", ["src"])
        assert main(["fit", *args, f"--trainer.default_root_dir={folder}"]) == 0


@pytest.fixture(scope="session")
def lenet5_run(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of LeNet5, five steps long, trained on pixels that are not normalised."""
    folder = tmp_path_factory.mktemp("lenet5_run")
    train(folder, "--config=configs/lenet5.yaml", "--config=configs/published.yaml", *SHORT)
    return folder / "lightning_logs" / "lenet5" / "version_0"


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, driven by selenium."""
    if not shutil.which("chromedriver"):
        pytest.skip("no chromedriver: `make browser` installs it with Chromium")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options, Service(shutil.which("chromedriver")))
    yield chrome
    chrome.quit()
