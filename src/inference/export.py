"""Export of a trained network to files that need no code of this package: ONNX and torch.export."""

import io
import json
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor, nn
from torch.export import Dim
from torch.onnx import OnnxExporterError
from tqdm import tqdm

from src.data import ImageDataModule, names_of_classes, with_channels
from src.runs.folder import run_folder
from src.runs.network import BATCH, TrainedNetwork, import_class
from src.system.errors import UserError, reason
from src.system.files import write_whole

ONNX, PT2 = "model.onnx", "model.pt2"
TOLERANCE = 1e-4  # of a probability: other kernels round differently
OPSET, IR_VERSION = 18, 8  # the lowest that torch's exporter writes for every network, for older runtimes

INPUTS = {
    "raw": "uint8, 0 to 255: grey (N, H, W) with background 0, or (N, C, H, W); the network scales and normalises them",
    "float": "float32 (N, C, H, W), 0 to 255; the network scales and normalises them",
    "batch": "float32, as in a batch of the data module",
}

USE = """
import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession({path!r})
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
images = np.zeros((5, {shape}), np.{dtype})  # your images: {meaning}
(probabilities,) = session.run(None, {{"images": images}})
print([classes[answer] for answer in probabilities.argmax(axis=1)])
"""


class ImagesToProbabilities(nn.Module):
    """The exported module. It includes scaling and normalisation, if the data module has them, and softmax."""

    def __init__(self, trained: TrainedNetwork) -> None:
        super().__init__()
        self.network = trained.network
        self.read = trained.read

    def forward(self, images: Tensor) -> Tensor:
        """Map images to probabilities (N, K). For the images see `INPUTS`."""
        return self.read(images)


def export(
    ckpt_path: Path | None = None,
    output: Path | None = None,
    data_dir: Path | None = None,
    model: str | None = None,
    data: str | None = None,
    input: Literal["raw", "float"] = "raw",
) -> None:
    """Export a checkpoint to ONNX and torch.export, and check both on the test images.

    Writes ``model.onnx`` and ``model.pt2``, if both give the same answers as the network, and prints how to use them.

    Args:
        ckpt_path: The checkpoint.
        output: Folder to write to. Default: the run folder.
        data_dir: Folder of the data. Default: that of the training.
        model: Class of your own network (module.Class), if it is one.
        data: Class of your own data module (module.Class), if it is one.
        input: What the files take. raw: uint8 (N, 28, 28). float: float32 (N, 1, 28, 28), 0 to 255, for runtimes
            without uint8, such as OpenCV.

    Raises:
        UserError: The network can't be exported, or an exported file gives other answers.
    """
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    if ckpt_path is None:
        raise UserError("Name a checkpoint: --ckpt_path lightning_logs/lenet5/version_0/checkpoints/last.ckpt")
    named = import_class(model) if model is not None else None
    named_data = import_class(data, LightningDataModule) if data is not None else None
    trained = TrainedNetwork(ckpt_path, named, named_data)
    if data_dir is not None:
        trained.datamodule.data_dir = data_dir
    write_files(trained, output or run_folder(ckpt_path), input)


def _test_images(datamodule: Any, kind: str) -> tuple[Tensor, str]:
    """The test images of a data module as the exported files get them, and their key in `INPUTS`."""
    datamodule.prepare_data()
    datamodule.setup("test")
    if not isinstance(datamodule, ImageDataModule):
        return torch.cat([x for x, _ in datamodule.test_dataloader()]), "batch"
    images = datamodule.test[0]
    return (images, "raw") if kind == "raw" else (with_channels(images).float(), "float")


def write_files(trained: TrainedNetwork, folder: Path, kind: str = "raw") -> None:
    """Write the files of a network with its data, see `export`. The folder is made if it doesn't exist."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder.")
    images, kind = _test_images(trained.datamodule, kind)
    name = type(trained.network).__name__
    print(f"Exporting {name} …", flush=True)
    try:
        files = _export(trained, images[:2].clone(), kind)  # a view would be saved with all images
        largest = _largest_difference(trained, files, images)
    except UserError:
        raise
    except Exception as error:  # exporting a user's network can raise any exception
        while isinstance(error, OnnxExporterError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # torch's own text is about its steps
        raise UserError(f"{name} can't be exported: {reason(error)}") from None
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, content in files.items():
        write_whole(folder / file_name, content)
    print(
        f"Use it with numpy and onnxruntime:\n{_use(folder / ONNX, images, kind)}\n"
        f"On all {len(images):,} test images both files give the same answers as {name}; "
        f"the largest difference of a probability is {largest:.1e}."
    )
    print(*(f"{len(content) / 1e6:.2f} MB: {folder / file_name}" for file_name, content in files.items()), sep="\n")


def _use(path: Path, images: Tensor, kind: str) -> str:
    shape, dtype = ", ".join(map(str, images.shape[1:])), str(images.dtype).removeprefix("torch.")
    return USE.format(path=str(path), shape=shape, dtype=dtype, meaning=INPUTS[kind])


def _export(trained: TrainedNetwork, images: Tensor, kind: str) -> dict[str, bytes]:
    """Return the content of both files. `images` are two examples."""
    module = ImagesToProbabilities(trained)
    with torch.inference_mode():
        n_classes = module(images).shape[1]
    metadata = {
        "network": type(trained.network).__name__,
        "input": f"images: {INPUTS[kind]}",
        "output": "probabilities: float32 (N, K), one for each class",
        "classes": json.dumps(names_of_classes(trained.datamodule, n_classes)),
    }
    # The exporters print warnings about their own code, and the whole graph if they fail.
    with warnings.catch_warnings(action="ignore"), redirect_stderr(io.StringIO()):
        options = dict[str, Any](dynamic_shapes=({0: Dim.DYNAMIC},))
        try:
            program = torch.export.export(module, (images,), strict=False, **options)
        except Exception:  # without Python's frames, len(x) is a constant; with them, other things fail
            program = torch.export.export(module, (images,), strict=True, **options)
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
            opset_version=OPSET,
        )
    assert onnx is not None  # only the old exporter returns None
    onnx.model.ir_version = IR_VERSION
    onnx.model.metadata_props.update(metadata)
    return {ONNX: onnx.model_proto.SerializeToString(), PT2: pt2.getvalue()}


def _largest_difference(trained: TrainedNetwork, files: dict[str, bytes], images_all: Tensor) -> float:
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
    batches = images_all.tensor_split((1, 8, *range(BATCH, len(images_all), BATCH)))
    network, largest = ImagesToProbabilities(trained), 0.0
    with torch.inference_mode():
        expected_NK = torch.cat([network(batch) for batch in batches])
        for name, reader in readers.items():
            progress = tqdm(batches, desc=f"Checking {name}", unit=" batches")
            answered_NK = torch.cat([reader(batch) for batch in progress])
            difference = (answered_NK - expected_NK).abs().max().item()
            same = torch.equal(answered_NK.argmax(dim=1), expected_NK.argmax(dim=1))
            if not (same and difference <= TOLERANCE):
                raise UserError(
                    f"{name} doesn't give the same answers as the network: probabilities differ by up to "
                    f"{difference:.1e}. Nothing was written."
                )
            largest = max(largest, difference)
    return largest
