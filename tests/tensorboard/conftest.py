import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import train


@pytest.fixture(scope="session")
def runs(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of two short epochs, LeNet5 and CNN. For the screenshot: version_0 of both in the folder RUNS."""
    if existing := os.environ.get("RUNS"):
        return [Path(existing).resolve() / name / "version_0" for name in ("lenet5", "cnn")]
    folder = tmp_path_factory.mktemp("runs")
    short = [f"--trainer.limit_{name}_batches={batches}" for name, batches in (("train", 5), ("val", 2), ("test", 4))]
    for name in ("lenet5", "cnn"):
        train(folder, f"--config=configs/{name}.yaml", "--data.val_size=300", "--trainer.max_epochs=2", *short)
    return [folder / "lightning_logs" / name / "version_0" for name in ("lenet5", "cnn")]


@pytest.fixture(scope="session")
def tensorboard(runs: list[Path]) -> Iterator[str]:
    """The address of a TensorBoard with both runs."""
    with serve(runs[0].parents[1], "images/tags", b"/test", len(runs)) as address:
        yield address


@pytest.fixture
def tensorboard_of_ten_runs(runs: list[Path], tmp_path: Path) -> Iterator[str]:
    """The address of a TensorBoard with five copies of each run."""
    for run in runs:
        for number in range(5):
            shutil.copytree(run, tmp_path / run.parent.name / f"version_{number}")
    with serve(tmp_path, "images/tags", b"/test", 10) as address:
        yield address


@contextmanager
def serve(logdir: Path, route: str, text: bytes, times: int) -> Iterator[str]:
    """Start TensorBoard, and yield its address when the answer of a plugin contains a text so many times."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://localhost:{free.getsockname()[1]}"
    command = [str(Path(sys.executable).with_name("tensorboard")), "--host=localhost", f"--logdir={logdir}"]
    server = subprocess.Popen([*command, f"--port={address.rpartition(':')[2]}"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):  # TensorBoard reads the files in the background
            try:
                with urllib.request.urlopen(f"{address}/data/plugin/{route}", timeout=10) as response:
                    if response.read().count(text) == times:
                        break
            except OSError:
                pass
            time.sleep(0.25)
        else:
            pytest.fail("TensorBoard doesn't show the runs")
        yield address
    finally:
        server.terminate()
        server.wait()
