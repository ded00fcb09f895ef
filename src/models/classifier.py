"""The base of all networks: loss, metrics, optimiser and steps."""

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from src.system.errors import UserError

Batch = tuple[Tensor, Tensor]  # images (N, C, H, W) and labels (N,)


class Classifier(LightningModule, ABC):
    """A network that classifies images, trained with cross-entropy and Adam.

    A subclass defines its layers in `__init__`, and `forward`. A batch is (images, labels). If it has an attribute
    `weight`, that times the summed loss is the contribution of this device to the mean loss of the step. A training of
    this package measures loss and accuracy itself; with a plain Trainer, this class logs them.

    Args:
        lr: Learning rate of Adam. With a schedule, the highest learning rate.
        eps: Epsilon of Adam. The default is that of Keras, which the published comparison used.
        betas: Decay rates of Adam's running means of the gradients and of their squares.
        schedule: "constant", or "one_cycle": the learning rate rises to `lr` and falls to almost zero, along
            cosines over all steps of the training (L. N. Smith, N. Topin, "Super-convergence: very fast
            training of neural networks using large learning rates", 2018).
        label_smoothing: Train on targets that are mixed with the uniform distribution over the classes, with this
            weight (C. Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016). The
            curves show the loss without it.
        compile: Compile the network with torch's compiler, in place. The first steps then take much longer.

    Raises:
        UserError: `lr` or `eps` is not positive, or a beta or `label_smoothing` is not in the range from 0 to below 1.
    """

    channels_last = False  # whether the weights are stored so; `view` does not work after such a convolution

    def __init__(
        self,
        lr: float = 1e-3,
        eps: float = 1e-7,
        betas: tuple[float, float] = (0.9, 0.999),
        schedule: Literal["constant", "one_cycle"] = "constant",
        label_smoothing: float | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for name, value in (("lr", lr), ("eps", eps)):
            if not value > 0:
                raise UserError(f"{name} is {value}; it must be positive.")
        if not all(0 <= beta < 1 for beta in betas):
            raise UserError(f"betas are {betas}; each must be at least 0 and below 1.")
        if not 0 <= (label_smoothing or 0) < 1:
            raise UserError(f"label_smoothing is {label_smoothing}; it must be at least 0 and below 1.")
        self.lr = lr
        self.eps = eps
        self.betas = betas
        self.schedule = schedule
        self.label_smoothing = label_smoothing or 0.0
        self.is_measured = False  # a training of this package measures each step itself
        self._weight: float | None = None  # of each image in the loss of the current step

    @property
    def example_input_array(self) -> Any:
        """An input in the precision of the weights, for Lightning's summary."""
        example = super().example_input_array
        return example.to(self.dtype) if isinstance(example, Tensor) else example

    @example_input_array.setter
    def example_input_array(self, example: Any) -> None:
        LightningModule.example_input_array.fset(self, example)  # type: ignore[attr-defined]

    @abstractmethod
    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K), one for each class."""

    def setup(self, stage: str) -> None:
        # Other devices, such as MPS, may not support it.
        if self.channels_last and self.trainer.strategy.root_device.type in ("cpu", "cuda"):
            self.to(memory_format=torch.channels_last)
        if self.hparams.get("compile"):  # a network whose __init__ takes no arguments does not have it
            self.compile()
            self.example_input_array = None  # Lightning's summary would compile for it

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trainer: Any = None
        with suppress(RuntimeError):  # there is none, in a loop of the user
            trainer = self.trainer
        # Lightning cannot clip the gradients of a fused optimiser under mixed precision.
        fused = not (trainer and trainer.gradient_clip_val and "mixed" in str(trainer.precision))
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, betas=self.betas, eps=self.eps, fused=fused)
        if self.schedule == "constant":
            return optimizer
        if trainer is None:
            raise UserError("The one_cycle schedule needs a Trainer, which knows the number of steps.")
        scheduler = OneCycleLR(optimizer, self.lr, total_steps=number_of_steps(trainer), cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self._weight = getattr(batch, "weight", None)  # here, because DDP on GPUs makes a plain tuple of the batch

    def loss(self, logits_NK: Tensor, labels_N: Tensor) -> Tensor:
        """The mean loss of the images, which the training minimises. Override it for another than cross-entropy."""
        return self._loss_sum(logits_NK, labels_N) / max(len(labels_N), 1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x_NCHW, labels_N = batch
        logits_NK = self(x_NCHW.to(self.dtype))
        if logits_NK.dtype.itemsize < 4:
            logits_NK = logits_NK.float()  # a sum of losses in bfloat16 has two digits
        if self._weight is None:
            loss = self.loss(logits_NK, labels_N)
        elif type(self).loss is Classifier.loss:
            loss = self._weight * self._loss_sum(logits_NK, labels_N)
        elif len(labels_N):
            loss = self._weight * len(labels_N) * self.loss(logits_NK, labels_N)
        else:
            loss = logits_NK.sum()  # 0, as this device has no share of the batch
        self._log("train", logits_NK, labels_N, loss)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the probabilities (N, K)."""
        x_NCHW, _ = batch
        return self(x_NCHW.to(self.dtype)).softmax(dim=1)

    def _evaluate(self, stage: str, batch: Batch) -> None:
        x_NCHW, labels_N = batch
        self._log(stage, self(x_NCHW.to(self.dtype)), labels_N)

    def _loss_sum(self, logits_NK: Tensor, labels_N: Tensor) -> Tensor:
        return F.cross_entropy(logits_NK, labels_N, reduction="sum", label_smoothing=self.label_smoothing)

    def _log(self, stage: str, logits_NK: Tensor, labels_N: Tensor, loss: Tensor | None = None) -> None:
        """Log the mean loss and the accuracy of the epoch, with a plain Trainer."""
        if self.is_measured:
            return
        if loss is None:
            loss = F.cross_entropy(logits_NK.float(), labels_N)
        accuracy = (logits_NK.argmax(dim=1) == labels_N).float().mean()
        values = {f"{stage}_loss": loss.detach(), f"{stage}_accuracy": accuracy}
        self.log_dict(values, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels_N), sync_dist=True)


def number_of_steps(trainer: Trainer) -> int:
    """The steps of a training, for a one-cycle schedule.

    Raises:
        UserError: They are not known in advance.
    """
    steps = trainer.estimated_stepping_batches
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    if steps == float("inf") or any(isinstance(one, GradientAccumulationScheduler) for one in callbacks):
        raise UserError(
            "A one-cycle schedule needs a known number of steps: set --trainer.max_epochs, and "
            "--trainer.accumulate_grad_batches in place of GradientAccumulationScheduler."
        )
    return int(steps)


def glorot_uniform(module: nn.Module) -> None:
    """Initialise a layer as Keras does, with Glorot-uniform weights and zero biases. For `nn.Module.apply`.

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
