"""`python -m src export` writes files that give the same answers as the network, or no files."""

import json
import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor
from torchvision.datasets import MNIST

import src.inference.export as exporting
from src.cli.main import main
from src.data import MNISTDataModule
from src.models import LeNet5
from src.runs.checkpoints import CheckedCheckpointIO, load_checkpoint
from src.runs.network import TrainedNetwork
from src.system.errors import UserError
from src.system.machine import install_command
from tests.conftest import LETTERS, ROOT, Refused, RunCLI
from tests.tiny import Tiny


@pytest.fixture(scope="module")
def checkpoint(lenet5_run: Path) -> Path:
    return lenet5_run / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def printed_text(checkpoint: Path) -> str:
    """The output of an export into the run folder."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as printed:
        patch.chdir(ROOT)
        with pytest.raises(SystemExit) as ended:
            main(["export", "--ckpt_path", str(checkpoint)])
    assert ended.value.code == 0
    return printed.getvalue()


class Importing(Tiny):
    def __init__(self, **kwargs: Any) -> None:
        import imported_late  # noqa: F401

        super().__init__(**kwargs)


@pytest.mark.parametrize("named", [True, False])
def test_a_network_may_import_what_it_needs(
    cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """Also from a checkpoint of another program, which does not name the class."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "imported_late.py").touch()
    class_path = f"{__name__}.Importing"
    content: dict[str, Any] = {"state_dict": Importing().state_dict()}
    monkeypatch.delitem(sys.modules, "imported_late")
    arguments = {} if named else {"hyper_parameters": {"_class_path": class_path}}
    CheckedCheckpointIO().save_checkpoint(content | arguments, tmp_path / "it.ckpt")
    outcome = cli("export", f"--ckpt_path={tmp_path / 'it.ckpt'}", *([f"--model={class_path}"] if named else []))
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("size", [1, 7, 500])
def test_both_files_give_the_answers_of_the_network_for_raw_images(
    mnist: Path, lenet5_run: Path, checkpoint: Path, printed_text: str, size: int
) -> None:
    network = LeNet5().eval()
    network.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
    images_NHW = MNIST(mnist, train=True).data[:size]
    with torch.inference_mode():
        expected_NK = network(images_NHW.unsqueeze(1) / 255).softmax(dim=1)  # the run was trained without normalisation
        program_NK = torch.export.load(lenet5_run / "model.pt2").module()(images_NHW)
    session = onnxruntime.InferenceSession(lenet5_run / "model.onnx")
    (onnx_NK,) = session.run(None, {"images": images_NHW.numpy()})
    np.testing.assert_allclose(program_NK, expected_NK, atol=1e-5)
    np.testing.assert_allclose(onnx_NK, expected_NK, atol=1e-5)


@pytest.fixture(scope="module")
def float_files(normalised: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with `--input float` of a network with normalisation."""
    folder = tmp_path_factory.mktemp("float")
    exporting.export(normalised, folder, input="float")
    return folder


@pytest.fixture(scope="module")
def normalised(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose data module scales and normalises, both in place where images are float32."""
    content = load_checkpoint(checkpoint)
    content["datamodule_hyper_parameters"]["normalize"] = True
    path = tmp_path_factory.mktemp("normalised") / "it.ckpt"
    CheckedCheckpointIO().save_checkpoint(content, path)
    return path


def expected_answers(path: Path, images_NHW: Tensor) -> Tensor:
    network = LeNet5().eval()
    network.load_state_dict(load_checkpoint(path)["state_dict"])
    with torch.inference_mode():
        return network((images_NHW.unsqueeze(1) / 255 - 0.1307) / 0.3081).softmax(dim=1)


@pytest.mark.parametrize("size", [1, 100])
def test_with_input_float_the_files_take_float32_and_give_the_same_answers(
    mnist: Path, normalised: Path, float_files: Path, size: int
) -> None:
    images_NHW = MNIST(mnist, train=True).data[:size]
    images_NCHW = images_NHW.unsqueeze(1).float()
    session = onnxruntime.InferenceSession(float_files / "model.onnx")
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(float)", ["N", 1, 28, 28])
    assert session.get_modelmeta().custom_metadata_map["input"].startswith("images: float32 (N, C, H, W), 0 to 255;")
    expected_NK = expected_answers(normalised, images_NHW)
    (onnx_NK,) = session.run(None, {"images": images_NCHW.numpy()})
    np.testing.assert_allclose(onnx_NK, expected_NK, atol=1e-5)
    before_NCHW = images_NCHW.clone()
    program_NK = torch.export.load(float_files / "model.pt2").module()(images_NCHW)
    np.testing.assert_allclose(program_NK.detach(), expected_NK, atol=1e-5)
    assert torch.equal(images_NCHW, before_NCHW)  # the program leaves the images of its caller alone


def test_the_graph_has_the_lowest_versions(lenet5_run: Path, printed_text: str, float_files: Path) -> None:
    for folder in (lenet5_run, float_files):
        graph = onnx.load(folder / "model.onnx")
        onnx.checker.check_model(graph, full_check=True)
        assert (graph.ir_version, [used.version for used in graph.opset_import]) == (8, [18])


OTHER_RUNTIMES = """
import sys, cv2, numpy as np, onnxruntime
images_NCHW = np.load("images.npy")
(onnx_NK,) = onnxruntime.InferenceSession(sys.argv[1]).run(None, {"images": images_NCHW})
network = cv2.dnn.readNetFromONNX(sys.argv[1])
network.setInput(images_NCHW)
np.savez("answers.npz", onnxruntime=onnx_NK, opencv=network.forward())
"""


@pytest.mark.slow
def test_old_runtimes_read_the_file(mnist: Path, normalised: Path, float_files: Path, tmp_path: Path) -> None:
    """In an environment of their own: they need an old NumPy."""
    python = tmp_path / "environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)
    packages = ["onnxruntime==1.15.*", "opencv-python-headless==4.8.*", "numpy<2"]
    installed = subprocess.run([python, "-m", "pip", "install", *packages], capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"pip can't install {' '.join(packages)}: {installed.stderr[-200:]}")
    images_NHW = MNIST(mnist, train=False).data[:100]
    np.save(tmp_path / "images.npy", images_NHW.unsqueeze(1).float())
    subprocess.run([python, "-c", OTHER_RUNTIMES, float_files / "model.onnx"], cwd=tmp_path, check=True, timeout=120)
    expected_NK = expected_answers(normalised, images_NHW)
    with np.load(tmp_path / "answers.npz") as answers:
        for name in ("onnxruntime", "opencv"):
            np.testing.assert_allclose(answers[name], expected_NK, atol=1e-5, err_msg=name)


def test_the_printed_program_runs(checkpoint: Path, printed_text: str) -> None:
    (lines,) = re.findall(r"^import json\n.*?^print\(.*?\)$", printed_text, re.DOTALL | re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", lines], cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    network = LeNet5().eval()
    network.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
    answer = network(torch.zeros(1, 1, 28, 28)).argmax().item()
    assert done.stdout == f"{[str(answer)] * 5}\n"


def test_the_printed_figures_are_right(lenet5_run: Path, printed_text: str) -> None:
    for name in ("model.onnx", "model.pt2"):
        megabytes = (lenet5_run / name).stat().st_size / 1e6
        assert f"\n{megabytes:.2f} MB: {lenet5_run / name}\n" in printed_text
        assert 4 * 545_546 < 1e6 * megabytes < 4 * 545_546 + 100_000  # mainly the float32 weights
    assert re.search(r"all 10,000 test images .* largest difference of a probability is \d\.\de-\d+\.", printed_text)
    about = onnxruntime.InferenceSession(lenet5_run / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == list("0123456789")
    assert "uint8" in about["input"]
    assert str(ROOT).encode() not in (lenet5_run / "model.onnx").read_bytes()


@pytest.mark.parametrize("wrong", ["model.onnx", "model.pt2"])
def test_files_that_give_other_answers_are_not_written(
    wrong: str,
    lenet5_run: Path,
    checkpoint: Path,
    printed_text: str,
    letters: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {name: (lenet5_run / name).read_bytes() for name in ("model.onnx", "model.pt2")}
    monkeypatch.setattr(exporting, "_export", lambda trained, images, kind: files)
    trained = TrainedNetwork(checkpoint)
    trained.datamodule = MNISTDataModule(str(letters), classes=LETTERS, normalize=False)  # has fewer images
    with torch.no_grad():
        for name in ("weight", "bias"):  # changes the probabilities but no answer
            trained.network.get_parameter(f"network.dense2.{name}").mul_(1.01)
    if wrong == "model.pt2":  # then the other file agrees with the changed network

        class Agreeing:
            def __init__(self, content: bytes) -> None:
                pass

            def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
                return [trained.read(torch.from_numpy(inputs["images"])).numpy()]

        monkeypatch.setattr(onnxruntime, "InferenceSession", Agreeing)
    with pytest.raises(UserError, match=f"{wrong} doesn't give the same answers as the network"):
        exporting.write_files(trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(
    cli: RunCLI, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    outcome = cli("export", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "out"))
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == f"error: {package} is not installed. export needs: {install_command('export')}\n"
    assert not (tmp_path / "out").exists()


class DataDependent(Tiny):
    """Its control flow depends on the values of the images, which no exporter supports."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return super().forward(x_NCHW if x_NCHW.sum() > 0 else -x_NCHW)


class WithEigenvalues(Tiny):
    """ONNX has no operator for them."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return super().forward(x_NCHW) + torch.linalg.eigvals(x_NCHW[:, 0]).real[:, :10]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "Name a checkpoint"),
        ("--ckpt_path {tmp}/none.ckpt", "There is no checkpoint"),
        ("--ckpt_path {tmp}/text.ckpt", "empty or damaged"),
        ("--ckpt_path {tmp}/other.ckpt", "does not name its network"),
        ("--ckpt_path {tmp}/DataDependent.ckpt", r"DataDependent can't be exported: \w+: .*\.$"),
        ("--ckpt_path {tmp}/WithEigenvalues.ckpt", "exported: .*No ONNX function found for .*linalg_eig"),
        ("--ckpt_path {checkpoint} --model CNN", "contains LeNet5, not CNN"),
        ("--ckpt_path {checkpoint} --model Missing", "Missing is not a network: name a LightningModule"),
        ("--ckpt_path {checkpoint} --model src.models.CNN", "contains LeNet5, not CNN"),
        ("--ckpt_path {checkpoint} --model no.such.Net", "no.such.Net is not a network"),
        ("--ckpt_path {checkpoint} --data_dir {tmp}/text.ckpt", "text.ckpt can't be used: .*--data.data_dir"),
        ("--ckpt_path {checkpoint} --output {tmp}/text.ckpt", "text.ckpt is not a folder"),
        ("--ckpt_path {checkpoint} --outputt x", "outputt"),
    ],
)
def test_a_mistake_ends_in_a_plain_message(
    refused: Refused, checkpoint: Path, tmp_path: Path, args: str, message: str
) -> None:
    (tmp_path / "text.ckpt").write_text("text")
    CheckedCheckpointIO().save_checkpoint({"state_dict": {}}, tmp_path / "other.ckpt")
    for network in (DataDependent(), WithEigenvalues()):
        name = type(network).__name__
        content = {"state_dict": network.state_dict(), "hyper_parameters": {"_class_path": f"{__name__}.{name}"}}
        CheckedCheckpointIO().save_checkpoint(content, tmp_path / f"{name}.ckpt")
    assert re.search(message, refused("export", *args.format(tmp=tmp_path, checkpoint=checkpoint).split()))
