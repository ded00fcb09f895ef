"""docs/extend.md, taken at its word: its files are written, its commands run, as they stand there."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import ROOT, Outcome

PAGE = (ROOT / "docs" / "extend.md").read_text()
FILES = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = re.findall(r"^    (python -m src .*)$", PAGE, re.MULTILINE)
FASHION = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


@pytest.fixture(scope="module")
def checkout(mnist: Path, letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the files of the page, all trainings limited to five steps in their configs.

    Fashion-MNIST is the real one where its package is installed, else a small data set in its place.
    """
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "src").symlink_to(ROOT / "src")
    (folder / "data").symlink_to(mnist)
    (folder / "configs").mkdir()
    configs = {path: (ROOT / path).read_text() for path in ("configs/lenet5.yaml", "configs/cnn.yaml")} | FILES
    for name, text in configs.items():
        if name.endswith(".yaml"):
            config = yaml.safe_load(text)
            config["trainer"] |= {"max_epochs": 1, "limit_train_batches": 5}
            if "data_dir" in config.get("data", {}) and not Path(config["data"]["data_dir"]).exists():
                config["data"]["data_dir"] = str(letters)
            text = yaml.safe_dump(config)
        (folder / name).write_text(text)
    return folder


def run(checkout: Path, command: str) -> Outcome:
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(shlex.split(command), cwd=checkout, env=env, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return Outcome(done.returncode, done.stdout, done.stderr)


def test_a_network_takes_less_than_forty_lines() -> None:
    assert set(FILES) == {"my_network.py", "my_network.yaml", "fashion_mnist.yaml"}
    assert len((FILES["my_network.py"] + FILES["my_network.yaml"]).splitlines()) < 40
    assert yaml.safe_load(FILES["fashion_mnist.yaml"])["data"]["classes"] == FASHION


@pytest.mark.slow
def test_the_whole_page(checkout: Path) -> None:
    said = {command: run(checkout, command).out for command in COMMANDS}
    assert len(said) == 9

    # The third network is in the charts of the others, and in the comparison.
    for network in ("lenet5", "mynet"):
        for curve in ("train", "validation"):
            events = EventAccumulator(str(checkout / "lightning_logs" / network / "version_0" / curve)).Reload()
            assert [event.step for tag in ("accuracy", "loss") for event in events.Scalars(f"curves/{tag}")] == [1, 1]
    report = json.loads((checkout / "comparison" / "lenet5-vs-cnn-vs-mynet" / "report.json").read_text())
    assert [(network["name"], len(network["runs"])) for network in report["networks"]] == [
        ("LeNet5", 2),
        ("CNN", 2),
        ("MyNet", 2),
    ]
    assert report["networks"][2]["parameters"] == 784 * 64 + 64 + 64 * 10 + 10
    tested = next(command for command in COMMANDS if command.startswith("python -m src test"))
    assert "MyNet: test accuracy" in said[tested]
    assert (checkout / "lightning_logs" / "mynet" / "version_0" / "model.onnx").exists()

    # The data set has its names wherever an answer is read.
    logs = checkout / "fashion_mnist" / "lightning_logs"
    report = json.loads((checkout / "comparison" / "cnn-vs-lenet5" / "report.json").read_text())
    assert report["classes"] == FASHION
    run_of_lenet5 = logs / "lenet5" / "version_0"
    answers = [line.split(",")[1] for line in (run_of_lenet5 / "predictions.csv").read_text().splitlines()[1:]]
    assert len(answers) == report["images"] and set(answers) <= set(FASHION)
    about = onnxruntime.InferenceSession(run_of_lenet5 / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == FASHION
