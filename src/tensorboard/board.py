"""What TensorBoard shows beside the curves: a switch for each part, and when it is written."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.model_summary import ModelSummary
from tensorboard.compat.proto.event_pb2 import Event
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from src import plots
from src.system.errors import reason
from src.system.machine import describe_machine
from src.tensorboard.logger import RunLogger
from src.tensorboard.network import PROJECTED, evaluating, graph, predict, write_features

BINS = 64  # of a histogram; TensorBoard draws 30


@dataclass(eq=False)
class TensorBoard(Callback):
    """What TensorBoard shows beside the curves.

    None of it changes the training. Pictures of the test use its outputs, so they need no second pass. Pictures over
    epochs are written after the epochs 1, 2, 4, 8, … and the last. A resumed run keeps those of its finished epochs.

    Args:
        hparams: HPARAMS tab: the settings of all runs with their results, to sort the runs by.
        texts: TEXT tab: the config, a table of the layers, and the hardware and versions.
        graph: GRAPHS tab: the layers by name.
        mistakes: IMAGES tab: misclassified test images with label, answer and confidence.
        confusion: IMAGES tab: the confusion matrix of the test images.
        answers: IMAGES tab, over epochs: a validation image of each class with the probabilities of the answers.
        filters: IMAGES tab, over epochs: the weights of the first convolution.
        histograms: HISTOGRAMS and DISTRIBUTIONS tabs: the weights, and the gradients of the last step, of each epoch.
        pr_curves: PR CURVES tab: precision and recall of each class in the test.
        projector: PROJECTOR tab: the input of the last linear layer for 1,000 test images.
    """

    hparams: bool = True
    texts: bool = True
    graph: bool = True
    mistakes: bool = True
    confusion: bool = True
    answers: bool = True
    filters: bool = True
    histograms: bool = True
    pr_curves: bool = True
    projector: bool = True

    # Of the training, which sets them.
    measuring: ClassVar[Any] = None
    settings: ClassVar[dict[str, Any]] = {}
    images: ClassVar[Any] = None  # its data module, if that keeps images in memory

    @rank_zero_only
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        logger = trainer.logger
        if not isinstance(logger, RunLogger) or logger.is_described:
            return
        logger.is_described = True
        if self.hparams:
            logger.log_hyperparams(_shown(self.settings, trainer.max_epochs))
        x_NCHW = batch[0][:1]
        with _without_effect_on_training(pl_module):
            writer: Any = logger.writer("train")
            if self.texts:
                for tag, text in _texts(trainer, pl_module, Path(logger.log_dir), x_NCHW):
                    writer.add_text(f"run/{tag}", text)
            if self.graph:
                writer.file_writer.add_event(Event(graph_def=graph(pl_module, x_NCHW).SerializeToString()))

    @rank_zero_only
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        # Before validation, for which Lightning clears the gradients.
        if self.histograms and trainer.is_last_batch and isinstance(trainer.logger, RunLogger):
            _write_histograms(trainer.logger.writer("train"), pl_module, trainer.current_epoch + 1)

    @rank_zero_only
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if _is_power_of_two(trainer.current_epoch + 1):
            self._draw_epoch(trainer, pl_module, trainer.current_epoch + 1)

    @rank_zero_only
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not _is_power_of_two(trainer.current_epoch):
            self._draw_epoch(trainer, pl_module, trainer.current_epoch)

    def _draw_epoch(self, trainer: Trainer, pl_module: LightningModule, epoch: int) -> None:
        if not isinstance(trainer.logger, RunLogger):
            return
        drawn = {}
        if self.answers and self.images:
            with _without_effect_on_training(pl_module):
                drawn["answers"] = _draw_answers(self.images, pl_module)
        convolutions = {name: layer for name, layer in pl_module.named_modules() if isinstance(layer, nn.Conv2d)}
        if self.filters and convolutions:
            drawn["filters"] = plots.filters(*next(iter(convolutions.items())))
        for name, figure in drawn.items():
            trainer.logger.writer("train").add_figure(f"pictures/{name}", figure, epoch)

    @rank_zero_only
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        logits_NK = self.measuring.test_logits_NK
        if not isinstance(trainer.logger, RunLogger) or logits_NK is None:
            return
        data = self.images
        writer, epoch, classes = trainer.logger.writer("test"), trainer.current_epoch, self.measuring.classes
        labels_N, probabilities_NK = self.measuring.test_labels_N, logits_NK.softmax(dim=1)
        if not data and (self.mistakes or self.answers or self.projector):
            rank_zero_info("TensorBoard shows no images: only an ImageDataModule keeps them in memory.")
        if self.mistakes and data:
            figure = plots.mistakes(data.test[0][: len(labels_N)], labels_N, probabilities_NK, classes)
            writer.add_figure("pictures/mistakes", figure, epoch)
        if self.confusion:
            figure = plots.confusion(labels_N, probabilities_NK.argmax(dim=1), classes)
            writer.add_figure("pictures/confusion", figure, epoch)
        if self.pr_curves:
            for label, name in enumerate(classes):
                writer.add_pr_curve(f"test/{name}", labels_N == label, probabilities_NK[:, label], epoch)
        if self.projector and data:
            images, labels_N = data.test[0][: len(labels_N)][:PROJECTED], labels_N[:PROJECTED]
            with _without_effect_on_training(pl_module):
                probabilities_NK, features_NF = predict(pl_module, data.preprocess(images))
                if features_NF is None:
                    rank_zero_warn(f"{type(pl_module).__name__} has no linear layer, so there is no PROJECTOR tab.")
                else:
                    answers_N = probabilities_NK.argmax(dim=1)
                    write_features(writer, features_NF, images, labels_N, answers_N, classes, epoch)


@contextmanager
def _without_effect_on_training(network: LightningModule) -> Iterator[None]:
    """Turn an exception of a user's network into a warning of one line."""
    try:
        yield
    except OSError:  # the disk is full
        raise
    except Exception as error:
        rank_zero_warn(f"TensorBoard doesn't show all of {type(network).__name__}: {reason(error)}")


def _is_power_of_two(epoch: int) -> bool:
    return epoch & (epoch - 1) == 0


def _shown(settings: dict[str, Any], max_epochs: int | None) -> dict[str, Any]:
    """The settings in the HPARAMS tab: the classes by their names, and their arguments."""
    shown: dict[str, Any] = {"max_epochs": max_epochs}
    for section, chosen in settings.items():
        if not chosen:
            continue
        shown[section] = chosen["class_path"].rpartition(".")[2]
        prefix = "" if section in ("model", "data") else f"{section}."
        shown |= {f"{prefix}{name}": value for name, value in (chosen.get("init_args") or {}).items()}
    shown.pop("data_dir", None)
    return shown


def _texts(trainer: Trainer, pl_module: LightningModule, run: Path, x_NCHW: Tensor) -> Iterator[tuple[str, str]]:
    """Yield tags with texts in Markdown."""
    config = run / "config.yaml"  # not `trainer.log_dir`, which waits for all processes
    if config.exists():
        yield "config", f"```yaml\n{config.read_text()}\n```"
    machine = describe_machine(pl_module.device, trainer.world_size)
    yield "machine", "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {machine[name]} |" for name in machine)])
    yield "layers", f"```\n{_layers(pl_module, x_NCHW)}\n```"


def _layers(network: LightningModule, x_NCHW: Tensor) -> ModelSummary:
    """All layers with their sizes and FLOPs for an input."""
    trainer, example = network.trainer, network.example_input_array
    network.trainer, network.example_input_array = None, x_NCHW  # its data module takes batches only
    try:
        with evaluating(network):
            return ModelSummary(network, max_depth=-1)
    finally:
        network.trainer, network.example_input_array = trainer, example


def _write_histograms(writer: SummaryWriter, network: nn.Module, epoch: int) -> None:
    """Write the weights of each layer, and its gradients in the last step of the epoch."""
    for name, weight in network.named_parameters():
        for kind, values in (("weights", weight.detach()), ("gradients", weight.grad)):
            if values is not None and (finite := values[values.isfinite()]).numel():
                writer.add_histogram(f"{kind}/{name}", finite.float(), epoch, bins=BINS)  # type: ignore[arg-type]


def _draw_answers(data: Any, pl_module: LightningModule) -> Any:
    """Draw the first validation image of each class, with the probabilities that the network gives them."""
    images, labels_N = data.val
    first = [int((labels_N == label).nonzero()[0]) for label in labels_N.unique()]
    probabilities_NK, _ = predict(pl_module, data.preprocess(images[first]))
    return plots.answers(images[first], labels_N[first], probabilities_NK, data.classes)
