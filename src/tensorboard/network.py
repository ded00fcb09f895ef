"""What TensorBoard shows of a network: its graph, and its answers and features. All of it is computed on copies.

Private names used here: torch.utils.tensorboard._pytorch_graph.graph (torch), because add_graph can't rename nodes.
"""

import copy
import io
import os
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import PurePosixPath

import torch
from lightning import LightningModule, Trainer
from tensorboard.compat.proto.graph_pb2 import GraphDef
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchmetrics import Metric

BATCH = 250  # images
PROJECTED = 1000  # images in the PROJECTOR tab
WIDEST = 128  # features of an image; a thousand images with more take several megabytes


def copy_network(network: LightningModule) -> LightningModule:
    """Copy a network, without metrics, for a forward pass that leaves the modes and buffers of the original alone."""
    copied = copy.deepcopy(network)
    copied.compile(disable=True)  # the copy of a compiled network would call the original
    for name, child in list(copied.named_children()):
        if isinstance(child, Metric):
            delattr(copied, name)
    copied.example_input_array = torch.zeros(1, 1, 28, 28).to(copied.device).to(copied.dtype)
    return copied.eval()


@torch.compiler.set_stance("force_eager")  # compiled layers call no hooks
@torch.inference_mode()
def predict(network: LightningModule, x_NCHW: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the probabilities (N, K), and the input of the last `nn.Linear` (N, F) if the network has one.

    Both are float32 on the CPU.
    """
    copied = copy_network(network)
    inputs: list[Tensor] = []  # of the linear layers, in the order of the forward pass
    for layer in copied.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(lambda layer, args: inputs.append(args[0]))
    probabilities, features = [], []
    for batch_NCHW in x_NCHW.to(copied.device).to(copied.dtype).split(BATCH):
        probabilities.append(copied(batch_NCHW).float().softmax(dim=1).cpu())
        if inputs:
            features.append(inputs[-1].flatten(1).float().cpu())
            inputs.clear()
    return torch.cat(probabilities), torch.cat(features) if features else None


def graph(network: LightningModule, trainer: Trainer) -> GraphDef:
    """Return the operations with short names: ``conv1/weight``, not ``LeNet5/Sequential[network]/Conv2d[conv1]/…``.

    Constants are omitted: layers share them, so each would connect the first layer with later ones.
    """
    # Imported here: if a new torch doesn't have it, only the graph is missing.
    from torch.utils.tensorboard._pytorch_graph import graph as trace

    copied = copy_network(network)
    copied.trainer = trainer  # tracing reads every attribute, and this one raises an error if it isn't set
    nodes = trace(copied, copied.example_input_array)[0].node
    kept = [node for node in nodes if node.op not in ("prim::Constant", "prim::ListConstruct")]
    root = os.path.commonpath([PurePosixPath(node.name).parent for node in kept if node.op != "IO Node"])

    def short(name: str) -> str:
        return re.sub(r"\w+\[(\w+)\]", r"\1", name.removeprefix(f"{root}/"))

    names = {node.name for node in kept}
    for node in kept:
        node.input[:] = [short(name) for name in node.input if name in names]
        node.name = short(node.name)
    return GraphDef(node=kept)


def write_features(
    writer: SummaryWriter,
    features_NF: Tensor,
    images_NHW: Tensor,
    labels_N: Tensor,
    answers_N: Tensor,
    classes: Sequence[str],
    epoch: int,
) -> None:
    """Write features of images for the PROJECTOR tab, beside the events. Those of an earlier test are replaced."""
    rows = [
        (classes[label], classes[answer]) for label, answer in zip(labels_N.tolist(), answers_N.tolist(), strict=True)
    ]
    pixels_NCHW = images_NHW.unsqueeze(1).float() / 255
    names = ["label", "answer"]
    with redirect_stdout(io.StringIO()):  # torch prints a warning where an earlier test wrote the same files
        writer.add_embedding(_narrow(features_NF), rows, pixels_NCHW, epoch, "features", metadata_header=names)


def _narrow(features_NF: Tensor) -> Tensor:
    """Return the first principal components of features that are too many. Their distances hardly change."""
    if features_NF.shape[1] <= WIDEST:
        return features_NF
    centred_NF = features_NF.double() - features_NF.double().mean(dim=0)
    variances_N, directions_NN = torch.linalg.eigh(centred_NF @ centred_NF.T)  # in ascending order
    return (directions_NN * variances_N.clamp(min=0).sqrt())[:, -WIDEST:].flip(1).float()
