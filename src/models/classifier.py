"""What every network here shares: loss, metrics, optimiser and steps."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from src.models.metrics import LossAndAccuracy
from src.system.errors import UserError
from src.system.processes import gather, own

Batch = tuple[Tensor, Tensor, float]  # images (N, C, H, W), labels (N,), weight of an image in the step's loss


class Classifier(LightningModule, ABC):
    """A network that sorts images into classes. A subclass adds layers in `__init__`, and `forward`.

    Trains with cross-entropy and Adam. A batch is (images, labels, weight); weight times the summed
    loss is the share of this device in the mean loss of the step.

    Args:
        lr: Learning rate of Adam; with a schedule, its peak.
        eps: Epsilon of Adam; 1e-7 is the default of Keras, with which the comparison was published.
        betas: How much Adam keeps of its running means of gradients and of their squares, each step.
        schedule: "one_cycle" raises the learning rate to its peak and lowers it to nearly nothing, in one
            arc of cosines over all steps of the training (L. N. Smith, N. Topin, "Super-convergence:
            very fast training of neural networks using large learning rates", 2018).

    Raises:
        UserError: `lr` or `eps` is not positive, or a beta not in 0 … 1.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        eps: float = 1e-7,
        betas: tuple[float, float] = (0.9, 0.999),
        schedule: Literal["constant", "one_cycle"] = "constant",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for name, value in (("lr", lr), ("eps", eps)):
            if not value > 0:
                raise UserError(f"{name} is {value}; it must be positive.")
        if not all(0 <= beta < 1 for beta in betas):
            raise UserError(f"betas are {betas}; each must be at least 0 and below 1.")
        self.lr = lr
        self.eps = eps
        self.betas = betas
        self.schedule = schedule
        self.train_metrics = LossAndAccuracy()
        self.val_metrics = LossAndAccuracy()
        self.test_metrics = LossAndAccuracy()

    @abstractmethod
    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Returns: logits (N, K), one for each class."""

    def setup(self, stage: str) -> None:
        # Gains 5 to 20 % of a step on the CPU; the function is the same.
        self.to(memory_format=torch.channels_last)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr, betas=self.betas, eps=self.eps, fused=True)
        if self.schedule == "constant":
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError("The one_cycle schedule needs an end: give --trainer.max_epochs.")
        scheduler = OneCycleLR(optimizer, self.lr, total_steps=int(steps), cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        scheduler = self.lr_schedulers()
        steps = self.trainer.estimated_stepping_batches
        if isinstance(scheduler, OneCycleLR) and scheduler.total_steps != steps:
            raise UserError(
                f"The one_cycle schedule of the checkpoint ends after {scheduler.total_steps:,} steps, this training "
                f"after {steps:,}: go on with the number of epochs that it was made for."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return batch[2] * self._evaluate(batch, self.train_metrics)[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns: logits (N, K)."""
        return self._evaluate(batch, self.test_metrics)[1]

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns: probabilities (N, K)."""
        return self(batch[0].to(self.dtype)).softmax(dim=1)

    def _evaluate(self, batch: Batch, metrics: LossAndAccuracy) -> tuple[Tensor, Tensor]:
        """Returns: the summed loss, and logits (N, K)."""
        x_NCHW, labels_N, _ = batch
        logits_NK = self(x_NCHW.to(self.dtype))
        loss_sum = F.cross_entropy(logits_NK, labels_N, reduction="sum")
        metrics.update(loss_sum, logits_NK, labels_N)
        return loss_sum, logits_NK

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["train_sums"] = gather(self.train_metrics.sums())  # of an epoch that may be half done

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for sums in own(checkpoint.get("train_sums", [])):
            self.train_metrics.add(sums)

    # Metrics are summed on the device in each step, but reduced and logged only once an epoch.

    def on_train_epoch_start(self) -> None:
        self.train_metrics.reset()

    def on_validation_epoch_start(self) -> None:
        self.val_metrics.reset()

    def on_test_epoch_start(self) -> None:
        self.test_metrics.reset()

    def on_train_epoch_end(self) -> None:
        self._log_epoch("train", self.train_metrics)

    def on_validation_epoch_end(self) -> None:
        self._log_epoch("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        self._log_epoch("test", self.test_metrics)

    def _log_epoch(self, stage: str, metrics: LossAndAccuracy) -> None:
        epoch = metrics.compute()
        self.log_dict({f"{stage}_{name}": epoch[name] for name in ("loss", "accuracy")}, prog_bar=True)


def glorot_uniform(module: nn.Module) -> None:
    """Initialise a layer as Keras does: weights Glorot-uniform, biases zero. Use: `network.apply(glorot_uniform)`.

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
