"""Networks of a user's own: with classes as arguments, with mistakes, changed since they were trained."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import SHORT, RunCLI

HEAD = """
import torch
from torch import nn
from src.models import Classifier

"""
LAYERS = "        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
FORWARD = "    def forward(self, x_NCHW):\n        return self.layers(x_NCHW)\n"
INIT = "class Net(Classifier):\n    def __init__(self, **kwargs):\n        super().__init__(**kwargs)\n"
NUMBERS = itertools.count()


def write(folder: Path, code: str) -> str:
    """Write a module with a name of its own. Returns: the class path of Net."""
    name = f"own_network_{next(NUMBERS)}"
    (folder / f"{name}.py").write_text(HEAD + code)
    return f"{name}.Net"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (INIT + LAYERS.replace("10", "3") + FORWARD, "Net has 3 outputs, but the data set has 10 classes."),
        (INIT + LAYERS + FORWARD.replace("(x_NCHW)\n", "(x_NCHW).sum()\n"), "must return logits of shape (N, 10)"),
        (INIT + LAYERS + "    def forward(self, x_NCHW):\n        return None\n", "it returned NoneType"),
        (
            INIT + LAYERS + "    def forward(self, x):\n        return self.layers(x).argmax(1)\n",
            "returned torch.int64",
        ),
        (INIT + "    def forward(self, x):\n        return x.flatten(1)[:, :10]\n", "has no trainable parameters"),
        (INIT + LAYERS + "        self.requires_grad_(False)\n" + FORWARD, "has no trainable parameters"),
        (INIT + LAYERS.replace("nn.Linear(784, 10)", "nn.LazyLinear(10)") + FORWARD, "has lazy layers"),
        (INIT + "        raise KeyError('width')\n" + FORWARD, "Net failed in __init__"),
        (INIT + LAYERS.replace("nn.Flatten()", "nn.Conv2d(3, 1, 1), nn.Flatten()") + FORWARD, "Net failed in forward"),
        (
            INIT + LAYERS + FORWARD + "    def training_step(self, batch, i):\n        return self.missing\n",
            "Net failed in training_step (training)",
        ),
    ],
)
def test_a_mistake_in_a_network_gets_a_plain_answer(
    cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    outcome = cli("fit", f"--model={write(tmp_path, code)}", *SHORT, "--trainer.limit_test_batches=1")
    assert outcome.code in (1, 2)
    assert message in outcome.err
    lines = [line for line in outcome.err.splitlines() if not line.startswith("Seed set")]
    assert "Traceback" not in outcome.err and "site-packages" not in outcome.err
    assert list(tmp_path.rglob("version_*")) == []
    if "failed in" in message:  # where it lies in the user's file
        assert any(f'File "{tmp_path}' in line for line in lines)


def test_a_class_as_argument_is_tested_predicted_and_exported(cli: RunCLI) -> None:
    network = ("--model=tests.tiny.WithParts", "--model.activation=torch.nn.Tanh")
    run = cli("fit", *network, *SHORT).run
    errors = json.loads((run / "results.json").read_text())["test"]["errors"]
    checkpoint = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    for named in ((), ("--model=tests.tiny.WithParts",), network):
        tested = cli("test", checkpoint, *named)
        assert f"({errors:,} errors" in tested.out, tested.err
    other = cli("test", checkpoint, "--model=tests.tiny.WithParts", "--model.activation=torch.nn.ReLU")
    assert other.code == 1 and "contradicts" in other.err
    assert cli("predict", checkpoint, "--trainer.limit_predict_batches=1").code == 0
    exported = cli("export", checkpoint, "--model=tests.tiny.WithParts")
    assert exported.code == 0, exported.err


def test_a_class_that_was_changed_since_the_training(
    cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    class_path = write(tmp_path, INIT + LAYERS + FORWARD)
    run = cli("fit", f"--model={class_path}", *SHORT, "--trainer.limit_test_batches=1").run
    del sys.modules[class_path.partition(".")[0]]
    wider = LAYERS.replace("nn.Linear(784, 10)", "nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10)")
    (tmp_path / f"{class_path.partition('.')[0]}.py").write_text(HEAD + INIT + wider + FORWARD)
    outcome = cli("test", f"--model={class_path}", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}")
    assert outcome.code == 1
    assert "does not fit the current" in outcome.err and "Traceback" not in outcome.err


@pytest.mark.parametrize("content", [b"model: LeN\xe9t\n", "model: LeNet5\n".encode("utf-16"), bytes(range(256))])
def test_a_config_that_is_no_text_in_utf_8(cli: RunCLI, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    outcome = cli("fit", f"--config={tmp_path / 'config.yaml'}")
    assert outcome.code in (1, 2) and "Traceback" not in outcome.err
    assert str(tmp_path / "config.yaml") in outcome.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hyper_parameters", []),
        ("hyper_parameters", {"_class_path": 5}),
        ("state_dict", None),
        ("state_dict", {}),
        ("state_dict", {"network.conv1.weight": torch.zeros(2)}),
        ("pytorch-lightning_version", 2.6),
        ("datamodule_hyper_parameters", "text"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "test", "export"])
def test_a_checkpoint_with_wrong_content(
    cli: RunCLI, lenet5_run: Path, tmp_path: Path, command: str, name: str, value: object
) -> None:
    checkpoint = torch.load(lenet5_run / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save(checkpoint | {name: value}, tmp_path / "wrong.ckpt")
    outcome = cli(command, f"--ckpt_path={tmp_path / 'wrong.ckpt'}")
    assert outcome.code == 1
    assert str(tmp_path / "wrong.ckpt") in outcome.err and "Traceback" not in outcome.err
