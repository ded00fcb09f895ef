"""What a network and its data must be for a training, and the evaluation steps that a network may leave out."""

from typing import Any

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.nn.parameter import is_lazy

from src.data import ImageDataModule
from src.models import CNN, Classifier, LeNet5
from src.system.errors import UserError
from src.tensorboard.network import evaluating


def check_network(network: LightningModule) -> None:
    """Raise a `UserError` for a network that cannot be trained, before anything is written."""
    name = type(network).__name__
    if isinstance(network, Classifier) and not hasattr(network, "is_measured"):
        raise UserError(f"{name}.__init__ must call super().__init__(**kwargs).")
    if any(is_lazy(parameter) for parameter in network.parameters()):
        raise UserError(f"{name} has lazy layers, whose sizes are not known yet. Use layers with sizes.")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError(f"{name} has no trainable parameters.")


def add_evaluation_steps(network: LightningModule, data: LightningDataModule) -> None:
    """Let the evaluation call `forward`, where a network has no step of its own for the images of its data module.

    `Measuring` needs nothing else.
    """

    def step(batch: Any, batch_idx: int) -> None:
        network(batch[0])

    for stage, loader in (("validation", "val"), ("test", "test")):
        if has_images(data, loader) and not is_overridden(f"{stage}_step", network, LightningModule):
            setattr(network, f"{stage}_step", step)


def has_images(data: LightningDataModule, stage: str) -> bool:
    """Whether a data module has images of "val" or "test"."""
    return is_overridden(f"{stage}_dataloader", data, LightningDataModule)


class CheckedForward(Callback):
    """Raises a `UserError` before the first step, if `forward` does not map images of the data set to logits.

    It comes before `Measuring`, which keeps the first output of each step.
    """

    is_done = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give Lightning's summary of the layers an input, if the network has none, for sizes and FLOPs."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ImageDataModule) and data.shape and pl_module.example_input_array is None:
            pl_module.example_input_array = torch.zeros(1, *data.shape)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.is_done:
            return
        self.is_done = True
        data = trainer.datamodule  # type: ignore[attr-defined]
        is_pair = isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor)
        if not is_pair or batch[1].is_floating_point() or batch[1].ndim != 1:
            raise UserError(
                f"{type(data).__name__} must yield batches (x, y), with the labels y as whole numbers of shape (N,)."
            )
        x, labels_N = batch
        is_image = isinstance(x, Tensor)
        if type(pl_module) in (LeNet5, CNN) and is_image and x.shape[1:] != (1, 28, 28):
            raise UserError(
                f"{type(pl_module).__name__} takes images of shape (1, 28, 28); those of the data set have "
                f"{tuple(x.shape[1:])}. Name a network of your own with --model."
            )
        n_classes = len(data.classes) if isinstance(data, ImageDataModule) else None
        n_images = min(2, len(labels_N)) if is_image else len(labels_N)
        if n_images:
            logits_NK = _answer(trainer, pl_module, x[:n_images] if is_image else x)
            _check_logits(pl_module, logits_NK, n_images, n_classes, labels_N)


def _answer(trainer: Trainer, network: LightningModule, x: Any) -> Any:
    """What `forward` returns for images in evaluation mode, with its gradients."""
    with evaluating(network), torch.enable_grad(), trainer.precision_plugin.forward_context():
        return network(x)


def _check_logits(network: LightningModule, logits_NK: Any, N: int, K: int | None, labels_N: Tensor) -> None:
    """Raise a `UserError` if an output is not logits (N, K). K is None if the data set does not say it."""
    name = type(network).__name__
    wanted = f"{name}.forward must return logits of shape (N, {K or 'K'}), a row for each image; for {N} images it"
    if not isinstance(logits_NK, Tensor) or not logits_NK.is_floating_point():
        kind = logits_NK.dtype if isinstance(logits_NK, Tensor) else type(logits_NK).__name__
        raise UserError(f"{wanted} returned {kind}.")
    if logits_NK.ndim != 2 or len(logits_NK) != N:
        raise UserError(f"{wanted} returned shape {tuple(logits_NK.shape)}.")
    n_outputs, highest = logits_NK.shape[1], int(labels_N.max())
    if K is not None and n_outputs != K:
        raise UserError(f"{name} has {n_outputs} outputs, but the data set has {K} classes. See --model.help {name}.")
    if highest >= n_outputs:
        raise UserError(f"{name} has {n_outputs} outputs, but the data set has the label {highest}.")
    if not logits_NK.requires_grad:
        raise UserError(f"The logits of {name} do not depend on its trainable parameters.")
    sums_N = logits_NK.detach().float().sum(dim=1)
    if (logits_NK >= 0).all() and torch.allclose(sums_N, torch.ones_like(sums_N), atol=1e-3):
        raise UserError(f"{name}.forward returns probabilities. It must return logits: leave out the softmax.")
