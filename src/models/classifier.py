"""The base of all networks: loss, metrics, optimiser and steps."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from src.models.metrics import EpochMetrics
from src.system.errors import UserError
from src.system.processes import gather, pick_by_rank

Batch = tuple[Tensor, Tensor, float]  # images (N, C, H, W), labels (N,), weight of each image in the loss


class Classifier(LightningModule, ABC):
    """A network that classifies images, trained with cross-entropy and Adam.

    A subclass defines its layers in `__init__`, and `forward`. A batch is (images, labels, weight): weight
    times the summed loss is the contribution of this device to the mean loss of the step.

    Args:
        lr: Learning rate of Adam. With a schedule, the highest learning rate.
        eps: Epsilon of Adam. The default is that of Keras, which the published comparison used.
        betas: Decay rates of Adam's running means of the gradients and of their squares.
        schedule: "constant", or "one_cycle": the learning rate rises to `lr` and falls to almost zero, along
            cosines over all steps of the training (L. N. Smith, N. Topin, "Super-convergence: very fast
            training of neural networks using large learning rates", 2018).
        label_smoothing: Train on targets that are mixed with the uniform distribution over the classes, with this
            weight (C. Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016). The
            training loss contains it; the losses of validation and test do not.
        compile: Compile the network with torch's compiler, in place. The first steps then take much longer.

    Raises:
        UserError: `lr` or `eps` is not positive, or a beta or `label_smoothing` is not in the range from 0 to below 1.
    """

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
        # In a dict, because they are no part of the network: a conversion to bfloat16 would round their sums.
        self._metrics = {stage: EpochMetrics() for stage in ("train", "val", "test")}

    @abstractmethod
    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map images (N, C, H, W) to logits (N, K), one for each class."""

    def setup(self, stage: str) -> None:
        # 5 to 20 % faster on the CPU, with the same results. Other devices, such as MPS, may not support it.
        if self.trainer.strategy.root_device.type in ("cpu", "cuda"):
            self.to(memory_format=torch.channels_last)
        if self.trainer.precision == "64-true":
            self.double()  # Lightning would do it after restoring a checkpoint, and lose half of the digits
        if self.hparams.get("compile"):  # a network whose __init__ takes no arguments does not have it
            self.compile()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # Lightning cannot clip the gradients of a fused optimiser under mixed precision.
        fused = not (self.trainer.gradient_clip_val and "mixed" in str(self.trainer.precision))
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, betas=self.betas, eps=self.eps, fused=fused)
        if self.schedule == "constant":
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        changes = any(isinstance(callback, GradientAccumulationScheduler) for callback in self.trainer.callbacks)  # type: ignore[attr-defined]
        if steps == float("inf") or changes:
            raise UserError(
                "The one_cycle schedule needs a known number of steps: set --trainer.max_epochs, and "
                "--trainer.accumulate_grad_batches in place of GradientAccumulationScheduler."
            )
        scheduler = OneCycleLR(optimizer, self.lr, total_steps=int(steps), cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        self.train_metrics.to(self.device)  # not at the start of the epoch: it may be resumed inside
        scheduler = self.lr_schedulers()
        steps = self.trainer.estimated_stepping_batches
        if isinstance(scheduler, OneCycleLR) and scheduler.total_steps != steps:
            raise UserError(
                f"The one_cycle schedule of the checkpoint has {scheduler.total_steps:,} steps, but this training has "
                f"{steps:,}. Use the number of epochs and the batch size of the checkpoint."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss_sum, _ = self._evaluate(batch, self.train_metrics, self.label_smoothing)
        _, _, weight = batch
        return weight * loss_sum

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the logits (N, K)."""
        _, logits_NK = self._evaluate(batch, self.test_metrics)
        return logits_NK

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the probabilities (N, K)."""
        x_NCHW, _, _ = batch
        return self(x_NCHW.to(self.dtype)).softmax(dim=1)

    def _evaluate(self, batch: Batch, metrics: EpochMetrics, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Update the metrics; return the summed loss and the logits (N, K)."""
        x_NCHW, labels_N, _ = batch
        logits_NK = self(x_NCHW.to(self.dtype))
        if logits_NK.dtype.itemsize < 4:
            logits_NK = logits_NK.float()  # a sum of losses in bfloat16 has two digits
        loss_sum = F.cross_entropy(logits_NK, labels_N, reduction="sum", label_smoothing=label_smoothing)
        metrics.update(loss_sum, logits_NK, labels_N)
        return loss_sum, logits_NK

    @property
    def train_metrics(self) -> EpochMetrics:
        """Loss and accuracy of the training images in this epoch."""
        return self._metrics["train"]

    @property
    def val_metrics(self) -> EpochMetrics:
        """Loss and accuracy of the newest validation."""
        return self._metrics["val"]

    @property
    def test_metrics(self) -> EpochMetrics:
        """Loss and accuracy of the newest test."""
        return self._metrics["test"]

    # A checkpoint inside an epoch keeps the training metrics of the steps so far.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = move_data_to_device(self.train_metrics.metric_state, torch.device("cpu"))
        checkpoint["train_metrics"] = gather(state)  # Lightning calls this hook in every process

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for state in pick_by_rank(checkpoint.get("train_metrics", [])):
            self.train_metrics.merge_state(move_data_to_device(state, self.train_metrics.device))

    # Each step adds to the metrics on its device. They are synchronised and logged only once an epoch.

    def on_train_epoch_start(self) -> None:
        self.train_metrics.reset()

    def on_validation_epoch_start(self) -> None:
        self.val_metrics.to(self.device).reset()

    def on_test_epoch_start(self) -> None:
        self.test_metrics.to(self.device).reset()

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train", self.train_metrics)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test", self.test_metrics)

    def _log_epoch(self, stage: str, metrics: EpochMetrics) -> None:
        curves = {name: value for name, value in metrics.compute().items() if value.is_floating_point()}
        self.log_dict({f"{stage}_{name}": value for name, value in curves.items()}, prog_bar=True)


def glorot_uniform(module: nn.Module) -> None:
    """Initialise a layer as Keras does, with Glorot-uniform weights and zero biases. For `nn.Module.apply`.

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
