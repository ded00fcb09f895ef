"""The content of TensorBoard's files beside the curves."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch import nn

from src.models import CNN, Classifier, LeNet5
from src.runs.folder import Run
from src.runs.recipe import recipe
from src.tensorboard.board import TensorBoard
from tests.conftest import SHORT, RunCLI
from tests.tiny import Tiny

ALL_OFF = [f"--tensorboard.{name}=false" for name in vars(TensorBoard())]
PICTURES = ["pictures/mistakes", "pictures/confusion", "pictures/filters"]


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), {"tensors": 0, "images": 0})
    events.Reload()
    return events


def texts(run: Path) -> dict[str, list[str]]:
    events = read(run / "train")
    found = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"] if tag.startswith("run/")}
    return {tag: [make_ndarray(event.tensor_proto)[0].decode() for event in events] for tag, events in found.items()}


def test_pictures_are_those_of_the_test_after_the_last_epoch(runs: list[Path]) -> None:
    for run in runs:
        events = read(run / "test")
        assert sorted(events.Tags()["images"]) == sorted(PICTURES)
        assert [[image.step for image in events.Images(tag)] for tag in PICTURES] == [[2], [2], [2]]
        assert sum(file.stat().st_size for file in run.rglob("events.*")) < 500_000


def test_texts_are_config_layers_and_machine(runs: list[Path]) -> None:
    for run, parameters, multiply_adds in ((runs[0], "545 K", 3_434_760), (runs[1], "1.2 M", 11_992_448)):
        config, layers, machine = (
            texts(run)[f"run/{name}/text_summary"][0] for name in ("config", "layers", "machine")
        )
        assert config == f"```yaml\n{(run / 'config.yaml').read_text()}\n```"
        assert re.search(rf"^{re.escape(parameters)} +Total params", layers, re.MULTILINE)
        assert re.search(rf"^{2 * multiply_adds / 1e6:.1f} M +Total Flops", layers, re.MULTILINE)
        assert f"| torch | {torch.__version__} |" in machine


@pytest.mark.parametrize(("number", "network"), [(0, LeNet5), (1, CNN)])
def test_graph_is_the_chain_of_the_layers(runs: list[Path], number: int, network: type[Classifier]) -> None:
    nodes = read(runs[number] / "train").Graph().node
    known = {node.name for node in nodes}
    edges = set()
    for node in nodes:
        assert set(node.input) <= known
        edges |= {(name.split("/")[0], node.name.split("/")[0]) for name in node.input}
    layers: Any = network().network
    chain = ["input", *dict(layers.named_children()), "output"]
    between_layers = {edge for edge in edges if edge[0] != edge[1]}
    assert between_layers == set(zip(chain, chain[1:], strict=False))


class Frozen(Tiny):
    """It draws random numbers in evaluation mode, keeps one layer in that mode, and overrides the test step."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1).eval()

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        return super().forward(self.norm(x_NCHW) + 1e-3 * torch.rand_like(x_NCHW))

    def on_train_start(self) -> None:
        self.norm.eval()

    def test_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        super().test_step(batch, batch_idx)


def test_training_is_the_same_with_all_of_it_and_without(cli: RunCLI) -> None:
    settings = ("fit", "--model=tests.tensorboard.test_board.Frozen", *SHORT, "--trainer.limit_test_batches=2")
    with_all, without = cli(*settings).run, cli(*settings, *ALL_OFF).run
    weights = [torch.load(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (with_all, without)]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    assert texts(with_all).keys()
    for folder in without.iterdir():
        tags = read(folder).Tags() if folder.is_dir() else {}
        assert not tags.get("images")
        assert not tags.get("graph")
        assert not [tag for tag in tags.get("tensors", []) if tag.startswith("run/")]
    assert recipe(Run(with_all).config) == recipe(Run(without).config)


def test_a_resume_writes_nothing_twice(cli: RunCLI) -> None:
    run = cli("fit", "--model=LeNet5", *SHORT, "--trainer.limit_test_batches=2").run
    (run / "results.json").unlink()  # as if it had been stopped in the test, after everything was written
    assert cli("fit", f"--resume={run}", "--tensorboard.filters=false").code == 0
    assert {tag: len(found) for tag, found in texts(run).items()} == {
        f"run/{name}/text_summary": 1 for name in ("config", "layers", "machine")
    }
    assert read(run / "train").Tags()["graph"]
    assert len(read(run / "train").Scalars("curves/loss")) == 1
    events = read(run / "test")
    assert [len(events.Images(tag)) for tag in PICTURES[:2]] == [1, 1]
    assert "pictures/filters" not in events.Tags()["images"]
