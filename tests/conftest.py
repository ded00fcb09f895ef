import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from src.cli import main
from src.data.source import fetch_mnist

ROOT = Path(__file__).parents[1]
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # weights are compared bit for bit, on the CPU


@pytest.fixture(scope="session")
def mnist() -> Path:
    """The data folder of this checkout, with MNIST in it."""
    fetch_mnist(ROOT / "data")
    return ROOT / "data"


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def run(self) -> Path:
        """The run folder that `fit` names in its last lines."""
        found = re.search(r"^Run: +(.+)$", self.out, re.MULTILINE)
        assert found, self.out + self.err
        return Path(found[1])


RunCLI = Callable[..., Outcome]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mnist: Path, tmp_path: Path) -> RunCLI:
    """Run the command line in this process (an import of Lightning takes seconds); runs land in `tmp_path`."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["src"])

    def run(*args: str) -> Outcome:
        capfd.readouterr()
        try:
            code = main([*args, f"--trainer.default_root_dir={tmp_path}"] if args else [])
        except SystemExit as error:
            assert isinstance(error.code, int)
            code = error.code
        return Outcome(code, *capfd.readouterr())

    return run


SHORT = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=5", "--trainer.limit_val_batches=2")


def train(folder: Path, *args: str) -> None:
    """Fit in this process; runs land in `folder`."""
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
