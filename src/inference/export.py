"""Export of a trained network to files that need no code of this package: ONNX and torch.export."""

import io
import json
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim
from tqdm import tqdm

from src.runs.folder import run_folder
from src.runs.network import BATCH, TrainedNetwork, import_network
from src.system.errors import UserError
from src.system.files import write_whole

ONNX, PT2 = "model.onnx", "model.pt2"
TOLERANCE = 1e-4  # of a probability: other kernels round differently

USE = """
import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession({path!r})
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
images = np.zeros((5, 28, 28), np.uint8)  # your images: grey, 0 is background, up to 255
(probabilities,) = session.run(None, {{"images": images}})
print([classes[answer] for answer in probabilities.argmax(axis=1)])
"""


class RawToProbabilities(nn.Module):
    """The exported module. It includes scaling, normalisation and softmax."""

    def __init__(self, trained: TrainedNetwork) -> None:
        super().__init__()
        self.network = trained.network
        self.read = trained.read

    def forward(self, images: Tensor) -> Tensor:
        """Map raw images, (N, 28, 28) uint8, to probabilities (N, K)."""
        return self.read(images)


def export(
    ckpt_path: Path | None = None, output: Path | None = None, data_dir: Path | None = None, model: str | None = None
) -> None:
    """Export a checkpoint to ONNX and torch.export, and check both on the test images.

    Writes ``model.onnx`` and ``model.pt2``, if both give the same answers as the network, and prints how to use them.

    Args:
        ckpt_path: The checkpoint.
        output: Folder to write to. Default: the run folder.
        data_dir: Folder of the data. Default: that of the training.
        model: Class of your own network (module.Class), if it is one.

    Raises:
        UserError: The network can't be exported, or an exported file gives other answers.
    """
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    if ckpt_path is None:
        raise UserError("Name a checkpoint: --ckpt_path lightning_logs/lenet5/version_0/checkpoints/last.ckpt")
    trained = TrainedNetwork(ckpt_path, import_network(model) if model is not None else None)
    if data_dir is not None:
        trained.datamodule.data_dir = data_dir
    write_files(trained, output or run_folder(ckpt_path))


def write_files(trained: TrainedNetwork, folder: Path) -> None:
    """Write the files of a network with its data, see `export`. The folder is made if it doesn't exist."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder.")
    trained.datamodule.prepare_data()
    trained.datamodule.setup("test")
    images_NHW, _ = trained.datamodule.test
    name = type(trained.network).__name__
    print(f"Exporting {name} …", flush=True)
    try:
        files = _export(trained)
        largest = _largest_difference(trained, files, images_NHW)
    except UserError:
        raise
    except Exception as error:  # exporting a user's network can raise any exception
        message = " ".join(str(error).split())[:200]
        raise UserError(f"{name} can't be exported: {type(error).__name__}: {message}") from None
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, content in files.items():
        write_whole(folder / file_name, content)
    print(
        f"Use it with numpy and onnxruntime:\n{USE.format(path=str(folder / ONNX))}\n"
        f"On all {len(images_NHW):,} test images both files give the same answers as {name}; "
        f"the largest difference of a probability is {largest:.1e}."
    )
    print(*(f"{len(content) / 1e6:.2f} MB: {folder / file_name}" for file_name, content in files.items()), sep="\n")


def _export(trained: TrainedNetwork) -> dict[str, bytes]:
    """Return the content of both files."""
    metadata = {
        "network": type(trained.network).__name__,
        "input": "images: uint8 (N, 28, 28), grey, 0 is background, up to 255; the network scales and normalises them",
        "output": "probabilities: float32 (N, K), one for each class",
        "classes": json.dumps(trained.datamodule.classes),
    }
    # The exporters print warnings about their own code, and the whole graph if they fail.
    with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
        images = torch.zeros(2, 28, 28, dtype=torch.uint8)
        program = torch.export.export(
            RawToProbabilities(trained), (images,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False
        )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # contains paths of this machine
        pt2 = io.BytesIO()
        torch.export.save(program, pt2, extra_files=metadata)
        onnx = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: "N"},),
        )
    assert onnx is not None  # only the old exporter returns None
    onnx.model.metadata_props.update(metadata)
    return {ONNX: onnx.model_proto.SerializeToString(), PT2: pt2.getvalue()}


def _largest_difference(trained: TrainedNetwork, files: dict[str, bytes], images_NHW: Tensor) -> float:
    """Return the largest difference between the probabilities of the files and of the network, over all images.

    Raises:
        UserError: A file gives another class for an image, or a probability that differs by more than rounding.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(files[ONNX])
    readers: dict[str, Callable[[Tensor], Tensor]] = {
        ONNX: lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0]),
        PT2: torch.export.load(io.BytesIO(files[PT2])).module(),
    }
    # The first two batches test that any number of images is accepted.
    batches = images_NHW.tensor_split((1, 8, *range(BATCH, len(images_NHW), BATCH)))
    largest = 0.0
    with torch.inference_mode():
        expected_NK = torch.cat([trained.read(batch_NHW) for batch_NHW in batches])
        for name, reader in readers.items():
            progress = tqdm(batches, desc=f"Checking {name}", unit=" batches")
            answered_NK = torch.cat([reader(batch_NHW) for batch_NHW in progress])
            difference = (answered_NK - expected_NK).abs().max().item()
            same = torch.equal(answered_NK.argmax(dim=1), expected_NK.argmax(dim=1))
            if not (same and difference <= TOLERANCE):
                raise UserError(
                    f"{name} doesn't give the same answers as the network: probabilities differ by up to "
                    f"{difference:.1e}. Nothing was written."
                )
            largest = max(largest, difference)
    return largest
