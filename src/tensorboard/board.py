"""What TensorBoard shows beside the curves: hyperparameters, texts, the graph of the layers, pictures."""

# Private names used here: torch.utils.tensorboard._pytorch_graph.graph (torch), because add_graph can't rename nodes.

import copy
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.model_summary import ModelSummary
from lightning.pytorch.utilities.seed import isolate_rng
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.graph_pb2 import GraphDef
from torch import Tensor, nn
from torchmetrics import Metric

from src import plots
from src.system.machine import describe_machine
from src.system.processes import gather_shares
from src.tensorboard.logger import RunLogger


@dataclass(eq=False)
class TensorBoard(Callback):
    """What TensorBoard shows beside the curves.

    None of it changes the training. The pictures show the test after the last epoch and use its outputs, so
    they need no second pass. A resumed run writes everything again.

    Args:
        hparams: HPARAMS tab: the settings of all runs with their results, to sort the runs by.
        texts: TEXT tab: the config, a table of the layers, and the hardware and versions.
        graph: GRAPHS tab: the layers by name.
        mistakes: IMAGES tab: misclassified test images with label, answer and confidence.
        confusion: IMAGES tab: the confusion matrix of the test images.
        filters: IMAGES tab: the weights of the first convolution.
    """

    hparams: bool = True
    texts: bool = True
    graph: bool = True
    mistakes: bool = True
    confusion: bool = True
    filters: bool = True

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logger = trainer.logger
        if not isinstance(logger, RunLogger):
            return
        if self.hparams:
            logger.log_hyperparams(_settings(trainer, pl_module))
        with isolate_rng():  # even in evaluation mode, a network may draw random numbers
            try:
                writer: Any = logger.writer("train")
                if self.texts:
                    for tag, text in _texts(trainer, pl_module, Path(logger.log_dir)):
                        writer.add_text(f"run/{tag}", text)
                if self.graph:
                    writer.file_writer.add_event(Event(graph_def=_graph(trainer, pl_module).SerializeToString()))
            except Exception as error:  # tracing a user's network can raise any exception; training continues
                rank_zero_warn(f"TensorBoard doesn't show all of {type(pl_module).__name__}: {error}")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.logits: list[Tensor] = []  # (n, K) of each batch

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        if isinstance(outputs, Tensor):  # a subclass may return something else
            self.logits.append(outputs)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Collective: every process calls it, and the first one draws.
        logits_NK = gather_shares([share.float().cpu() for share in self.logits]) if self.logits else None
        if not isinstance(trainer.logger, RunLogger) or not trainer.is_global_zero:
            return
        drawn = {}
        if logits_NK is not None:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            images_NHW, labels_N = (tensor[: len(logits_NK)] for tensor in data.test)
            if self.mistakes:
                drawn["mistakes"] = plots.mistakes(images_NHW, labels_N, logits_NK.softmax(dim=1), data.classes)
            if self.confusion:
                drawn["confusion"] = plots.confusion(labels_N, logits_NK.argmax(dim=1), data.classes)
        convolutions = {name: layer for name, layer in pl_module.named_modules() if isinstance(layer, nn.Conv2d)}
        if self.filters and convolutions:
            drawn["filters"] = plots.filters(*next(iter(convolutions.items())))
        for name, figure in drawn.items():
            trainer.logger.writer("test").add_figure(f"pictures/{name}", figure, trainer.current_epoch)


def _settings(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    settings = {"model": type(pl_module).__name__, "max_epochs": trainer.max_epochs}
    settings |= pl_module.hparams | trainer.datamodule.hparams  # type: ignore[attr-defined]
    return {name: settings[name] for name in settings if not name.startswith("_") and name != "data_dir"}


def _texts(trainer: Trainer, pl_module: LightningModule, run: Path) -> Iterator[tuple[str, str]]:
    """Yield tags with texts in Markdown."""
    config = run / "config.yaml"  # not `trainer.log_dir`, which waits for all processes
    if config.exists():
        yield "config", f"```yaml\n{config.read_text()}\n```"
    machine = describe_machine(pl_module.device, trainer.world_size)
    yield "machine", "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {machine[name]} |" for name in machine)])
    yield "layers", f"```\n{ModelSummary(_copy(pl_module), max_depth=-1)}\n```"


def _graph(trainer: Trainer, pl_module: LightningModule) -> GraphDef:
    """Return the operations with short names: ``conv1/weight``, not ``LeNet5/Sequential[network]/Conv2d[conv1]/…``.

    Constants are omitted: layers share them, so each would connect the first layer with later ones.
    """
    # Imported here: if a new torch doesn't have it, only the graph is missing.
    from torch.utils.tensorboard._pytorch_graph import graph as trace

    network = _copy(pl_module)
    network.trainer = trainer  # tracing reads every attribute, and this one raises an error if it isn't set
    nodes = trace(network, network.example_input_array)[0].node
    kept = [node for node in nodes if node.op not in ("prim::Constant", "prim::ListConstruct")]
    root = os.path.commonpath([PurePosixPath(node.name).parent for node in kept if node.op != "IO Node"])

    def short(name: str) -> str:
        return re.sub(r"\w+\[(\w+)\]", r"\1", name.removeprefix(f"{root}/"))

    names = {node.name for node in kept}
    for node in kept:
        node.input[:] = [short(name) for name in node.input if name in names]
        node.name = short(node.name)
    return GraphDef(node=kept)


def _copy(pl_module: LightningModule) -> LightningModule:
    """Copy the network, without metrics, for a forward pass that leaves the modes and buffers of the original alone."""
    network = copy.deepcopy(pl_module)
    for name, child in list(network.named_children()):
        if isinstance(child, Metric):
            delattr(network, name)
    network.example_input_array = torch.zeros(1, 1, 28, 28).to(network.device).to(network.dtype)
    return network.eval()
