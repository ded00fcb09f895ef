"""What TensorBoard shows of a network: its graph, and its answers and features.

Private names used here: torch.utils.tensorboard._pytorch_graph.graph (torch), because add_graph can't rename nodes.
"""

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import PurePosixPath
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.seed import isolate_rng
from tensorboard.compat.proto.graph_pb2 import GraphDef
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchmetrics import Metric

BATCH = 250  # images
PROJECTED = 1000  # images in the PROJECTOR tab
WIDEST = 128  # features of an image; a thousand images with more take several megabytes


@contextmanager
def evaluating(network: LightningModule) -> Iterator[None]:
    """Switch a network to evaluation, then restore its modes and buffers and the random state."""
    modes = {module: module.training for module in network.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    network.eval()
    try:
        # Compiled layers call no hooks. Even in evaluation mode, a network may draw random numbers.
        with isolate_rng(), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)


def predict(network: LightningModule, x_NCHW: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the probabilities (N, K), and the input of the last `nn.Linear` (N, F) if the network has one.

    Both are float32 on the CPU.
    """
    inputs: list[Tensor] = []  # of the linear layers, in the order of the forward pass
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(lambda layer, args: inputs.append(args[0])) for layer in linear]
    probabilities, features = [], []
    try:
        with evaluating(network):
            for batch_NCHW in x_NCHW.to(network.device).to(network.dtype).split(BATCH):
                probabilities.append(network(batch_NCHW).float().softmax(dim=1).cpu())
                if inputs:
                    features.append(inputs[-1].flatten(1).float().cpu())
                    inputs.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(probabilities), torch.cat(features) if features else None


class _Traced(nn.Module):
    """The layers of a network and its forward pass alone: tracing reads every attribute, and some raise errors."""

    def __init__(self, network: LightningModule) -> None:
        super().__init__()
        for name, child in network.named_children():
            if not isinstance(child, Metric):
                self.add_module(name, child)
        for name, parameter in network.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in network.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.run = lambda *args: network.forward(*args)

    def forward(self, *args: Any) -> Any:
        return self.run(*args)


def graph(network: LightningModule, x_NCHW: Tensor) -> GraphDef:
    """Return the operations with short names: ``conv1/weight``, not ``LeNet5/Sequential[network]/Conv2d[conv1]/…``.

    Constants are omitted: layers share them, so each would connect the first layer with later ones.

    Args:
        network: Any network.
        x_NCHW: An input.
    """
    # Imported here: if a new torch doesn't have it, only the graph is missing.
    from torch.utils.tensorboard._pytorch_graph import graph as trace

    with evaluating(network):
        nodes = trace(_Traced(network).eval(), (x_NCHW,))[0].node
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
    images: Tensor,
    labels_N: Tensor,
    answers_N: Tensor,
    classes: Sequence[str],
    epoch: int,
) -> None:
    """Write features of images for the PROJECTOR tab, beside the events. Those of an earlier test are replaced.

    `images` are uint8, (N, H, W) or (N, C, H, W).
    """
    rows = [
        (classes[label], classes[answer]) for label, answer in zip(labels_N.tolist(), answers_N.tolist(), strict=True)
    ]
    pixels_NCHW = (images if images.ndim == 4 else images.unsqueeze(1)).float() / 255
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
