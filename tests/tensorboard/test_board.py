"""The content of TensorBoard's files beside the curves."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from src.data.source import read_mnist
from src.models import CNN, Classifier, LeNet5
from src.runs.folder import Run
from src.runs.network import TrainedNetwork
from src.runs.recipe import recipe
from src.tensorboard.board import TensorBoard
from src.tensorboard.logger import SUB_RUNS
from src.tensorboard.network import predict, write_features
from tests.conftest import SHORT_WITH_TABS, RunCLI
from tests.tiny import Tiny

ALL_OFF = [f"--tensorboard.{name}=false" for name in vars(TensorBoard())]
OF_THE_TEST = ["pictures/confusion", "pictures/mistakes"]
OVER_EPOCHS = ["pictures/answers", "pictures/filters"]


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), {"tensors": 0, "images": 0, "histograms": 0})
    events.Reload()
    return events


def texts(run: Path) -> dict[str, list[str]]:
    events = read(run / "train")
    tensors = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"] if tag.startswith("run/")}
    return {tag: [make_ndarray(event.tensor_proto)[0].decode() for event in events] for tag, events in tensors.items()}


def steps_of_pictures(folder: Path) -> dict[str, list[int]]:
    events = read(folder)
    return {tag: [image.step for image in events.Images(tag)] for tag in sorted(events.Tags()["images"])}


def test_pictures_are_those_of_the_test_and_of_some_epochs(runs: list[Path]) -> None:
    for run in runs:
        assert steps_of_pictures(run / "test") == dict.fromkeys(OF_THE_TEST, [2])
        assert steps_of_pictures(run / "train") == dict.fromkeys(OVER_EPOCHS, [1, 2])
        written = [file for sub_run in SUB_RUNS for file in (run / sub_run).rglob("*") if file.is_file()]
        assert 1e6 < sum(file.stat().st_size for file in written) < 3e6


def test_histograms_are_those_of_weights_and_gradients_in_each_epoch(runs: list[Path]) -> None:
    for run in runs:
        events = read(run / "train")
        weights = torch.load(run / "checkpoints" / "last.ckpt")["state_dict"]
        assert sorted(events.Tags()["histograms"]) == sorted(
            f"{kind}/{name}" for kind in ("weights", "gradients") for name in weights
        )
        for name, weight in weights.items():
            first, last = events.Histograms(f"weights/{name}")
            assert (first.step, last.step) == (1, 2)
            histogram = last.histogram_value
            assert histogram.num == sum(histogram.bucket) == weight.numel()
            assert (histogram.min, histogram.max) == (weight.min().item(), weight.max().item())
            assert histogram.sum_squares == pytest.approx(weight.square().sum().item(), rel=1e-3)
            for event in events.Histograms(f"gradients/{name}"):
                assert event.histogram_value.num == weight.numel()
                assert event.histogram_value.min < 0 < event.histogram_value.max


def test_the_projector_has_the_input_of_the_last_layer_for_the_test_images(runs: list[Path], mnist: Path) -> None:
    for run in runs:
        folder = run / "test" / "00002" / "features"
        weights = torch.load(run / "checkpoints" / "last.ckpt")["state_dict"]
        features_NF = torch.from_numpy(np.loadtxt(folder / "tensors.tsv", dtype=np.float32))
        logits_NK = features_NF @ weights["network.dense2.weight"].T + weights["network.dense2.bias"]
        labels_N = read_mnist(mnist, "t10k")[1][:512]
        names, *rows = [tuple(line.split("\t")) for line in (folder / "metadata.tsv").read_text().splitlines()]
        assert names == ("label", "answer")
        answers_N = logits_NK.argmax(dim=1)
        assert rows == [(str(int(label)), str(int(answer))) for label, answer in zip(labels_N, answers_N, strict=True)]
        wrong = sum(label != answer for label, answer in rows)
        assert wrong == json.loads((run / "results.json").read_text())["test"]["errors"]


def test_features_that_are_too_many_keep_their_distances(tmp_path: Path) -> None:
    features_NF = torch.randn(60, 3000, generator=torch.Generator().manual_seed(0))
    labels_N = torch.zeros(60, dtype=torch.long)
    images_NHW = torch.zeros(60, 28, 28, dtype=torch.uint8)
    for _ in range(2):  # the second replaces the first
        with SummaryWriter(str(tmp_path)) as writer:
            write_features(writer, features_NF, images_NHW, labels_N, labels_N, ["a", "b"], epoch=3)
    written = torch.from_numpy(np.loadtxt(tmp_path / "00003" / "features" / "tensors.tsv", dtype=np.float32))
    assert written.shape[1] <= 128
    distances = [torch.cdist(features, features) for features in (written, features_NF)]
    torch.testing.assert_close(*distances, rtol=1e-3, atol=0.05)


def test_precision_and_recall_are_those_of_the_test(runs: list[Path], mnist: Path) -> None:
    images_NHW, labels_N = (tensor[:512] for tensor in read_mnist(mnist, "t10k"))
    events = read(runs[1] / "test")
    trained = TrainedNetwork(runs[1] / "checkpoints" / "last.ckpt")
    probabilities_NK = torch.cat(list(trained.probabilities(images_NHW)))
    for label in (0, 7):
        (event,) = events.Tensors(f"test/{label}")
        table = make_ndarray(event.tensor_proto)  # true and false positives, true and false negatives, …
        threshold = 63  # of 0 … 126
        found_N, is_label_N = probabilities_NK[:, label] >= threshold / 126, labels_N == label
        counts = [(found_N & is_label_N).sum(), (found_N & ~is_label_N).sum(), (~found_N & ~is_label_N).sum()]
        assert table[:3, threshold].tolist() == [int(count) for count in counts]
        assert event.step == 2


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
    two_epochs = (*SHORT_WITH_TABS, "--trainer.max_epochs=2", "--trainer.limit_test_batches=2")
    settings = ("fit", "--model=tests.tensorboard.test_board.Frozen", *two_epochs)
    with_all, without = cli(*settings).run, cli(*settings, *ALL_OFF).run
    weights = [torch.load(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (with_all, without)]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    assert texts(with_all).keys()
    for folder in without.iterdir():
        tags = read(folder).Tags() if folder.is_dir() else {}
        assert not tags.get("images")
        assert not tags.get("histograms")
        assert not [tag for tag in tags.get("tensors", []) if tag.startswith("test/")]
        assert not list(folder.glob("*/features"))
        assert not tags.get("graph")
        assert not [tag for tag in tags.get("tensors", []) if tag.startswith("run/")]
    assert recipe(Run(with_all).config) == recipe(Run(without).config)


def test_a_compiled_network_is_evaluated_uncompiled() -> None:
    network = LeNet5()
    network.compile(backend="eager")
    x_NCHW = torch.rand(3, 1, 28, 28)
    probabilities_NK, features_NF = predict(network, x_NCHW)  # a compiled one would call no hooks
    assert features_NF is not None and features_NF.shape == (3, 84)
    weight_KF, bias_K = (parameter.detach() for parameter in list(network.parameters())[-2:])
    logits_NK = features_NF @ weight_KF.T + bias_K
    torch.testing.assert_close(probabilities_NK, logits_NK.softmax(dim=1))
    assert network.training and not network._forward_hooks


class Convolutions(Classifier):
    """It has no linear layer, keeps its logits, and can't be traced for the graph."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = nn.Conv2d(1, 10, kernel_size=28)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        self.logits_NK = self.layer(x_NCHW).flatten(1)
        if torch.jit.is_tracing():
            raise TypeError("Only Python runs this.")
        return self.logits_NK


def test_what_a_network_does_not_have_is_left_out_with_a_note(cli: RunCLI) -> None:
    settings = (
        "fit",
        "--model=tests.tensorboard.test_board.Convolutions",
        *SHORT_WITH_TABS,
        "--trainer.limit_test_batches=2",
    )
    with (
        pytest.warns(UserWarning, match="TensorBoard doesn't show all of Convolutions: TypeError: Only Python"),
        pytest.warns(UserWarning, match="Convolutions has no linear layer, so there is no PROJECTOR tab"),
    ):
        run = cli(*settings, "--trainer.limit_val_batches=0").run
    assert steps_of_pictures(run / "test") == dict.fromkeys(OF_THE_TEST, [1])
    assert steps_of_pictures(run / "train") == dict.fromkeys(OVER_EPOCHS, [1])
    assert not list((run / "test").glob("*/features"))


def test_a_resume_writes_nothing_twice(cli: RunCLI) -> None:
    run = cli("fit", "--model=LeNet5", *SHORT_WITH_TABS, "--trainer.max_epochs=5", "--trainer.limit_test_batches=2").run
    before = read(run / "train")
    whole = {tag: before.Histograms(tag) for tag in before.Tags()["histograms"]}
    (run / "results.json").unlink()  # as if it had been stopped in the test, after everything was written
    assert cli("fit", f"--resume={run}", "--tensorboard.confusion=false").code == 0
    assert {tag: len(written) for tag, written in texts(run).items()} == {
        f"run/{name}/text_summary": 1 for name in ("config", "layers", "machine")
    }
    after = read(run / "train")
    assert after.Tags()["graph"]
    assert len(after.Scalars("curves/loss")) == 5
    assert steps_of_pictures(run / "train") == dict.fromkeys(OVER_EPOCHS, [1, 2, 4, 5])
    assert {tag: after.Histograms(tag) for tag in whole} == whole
    assert steps_of_pictures(run / "test") == {"pictures/mistakes": [5]}
    assert [path.name for path in (run / "test").glob("*/features")] == ["features"]
