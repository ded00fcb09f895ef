"""The metrics of training, validation and test. To add a metric, edit this file alone."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric


class EpochMetrics(Metric):
    """Mean cross-entropy and accuracy over all images of an epoch, on all devices.

    To add a metric, add its states in `__init__`, and extend `update` and `compute`. Each floating-point
    value of `compute` is logged once an epoch, as ``train_<name>``, ``val_<name>`` and ``test_<name>``: it
    gets a TensorBoard chart in the group `details` and a curve in results.json. Integers are counts and have no curve.
    """

    full_state_update = False  # `update` doesn't read the states

    def __init__(self) -> None:
        super().__init__()
        self.add_state("loss_sum", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("n_correct", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("n_images", torch.tensor(0), dist_reduce_fx="sum")
        self._n_new = 0  # images since the last `flush`
        self.loss_sum: Tensor
        self.n_correct: Tensor
        self.n_images: Tensor

    def update(self, logits_NK: Tensor, labels_N: Tensor) -> None:
        """Add a batch, which may be empty."""
        if logits_NK.dtype.itemsize < 4:
            logits_NK = logits_NK.float()  # a sum of losses in bfloat16 has two digits
        loss_sum = F.cross_entropy(logits_NK, labels_N, reduction="sum")
        self.loss_sum.add_(loss_sum)  # `+=` would also set the attribute, which takes a module longer
        self.n_correct.add_((logits_NK.argmax(dim=1) == labels_N).sum())
        self._n_new += len(labels_N)  # on the host, which spares an operation in each step

    def flush(self) -> None:
        """Complete the states. Call it before they are saved or synchronised."""
        self.n_images.add_(self._n_new)
        self._n_new = 0

    def reset(self) -> None:
        super().reset()
        self._n_new = 0

    def compute(self) -> dict[str, Tensor]:
        """Return `loss`, `accuracy` (0…1), and the counts `errors` and `images`. Collective: waits for all devices."""
        self.flush()
        return {
            "loss": self.loss_sum / self.n_images,
            "accuracy": self.n_correct / self.n_images,
            "errors": self.n_images - self.n_correct,
            "images": self.n_images,
        }

    def local_values(self) -> dict[str, Tensor]:
        """Return the values of `compute` for the images of this device alone, without waiting for the others."""
        return type(self).compute(self)  # torchmetrics adds the synchronisation to `self.compute`
