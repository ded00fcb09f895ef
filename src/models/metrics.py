"""What is measured of a network in each epoch."""

import torch
from torch import Tensor
from torchmetrics import Metric


class LossAndAccuracy(Metric):
    """Mean cross-entropy and accuracy over every image seen, on all devices; an empty batch changes nothing."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")
        self.loss_sum: Tensor
        self.correct: Tensor
        self.images: Tensor

    def update(self, loss_sum: Tensor, logits_NK: Tensor, labels_N: Tensor) -> None:
        self.loss_sum += loss_sum.detach()
        self.correct += (logits_NK.argmax(dim=1) == labels_N).sum()
        self.images += len(labels_N)

    def sums(self) -> list[float]:
        """The state of this process, as plain data."""
        return [self.loss_sum.item(), self.correct.item(), self.images.item()]

    def add(self, sums: list[float]) -> None:
        """Add the `sums` of another."""
        for state, value in zip((self.loss_sum, self.correct, self.images), sums, strict=True):
            state += value

    def compute(self) -> dict[str, Tensor]:
        """Returns: `loss` (mean), `accuracy` (0…1), and the counts `errors` and `images`."""
        return {
            "loss": self.loss_sum / self.images,
            "accuracy": self.correct / self.images,
            "errors": self.images - self.correct,
            "images": self.images,
        }
