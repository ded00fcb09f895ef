# mypy: ignore-errors
"""Both networks with AdamW, weight decay for weights only, the share of the warm-up, and random erasing.

For `tune --model benchmarks.screening.LeNet5W`: docs/accurate.csv has the results.
"""

from typing import Any

import torch
from torch.optim.lr_scheduler import OneCycleLR

from src.models import CNN, LeNet5


class More:
    def __init__(
        self,
        weight_decay: float = 0.0,
        pct_start: float = 0.3,
        erase: float = 0.0,
        lr: float = 1e-3,
        eps: float = 1e-7,
        betas: tuple[float, float] = (0.9, 0.999),
        schedule: str = "constant",
        label_smoothing: float | None = None,
        num_classes: int = 10,
    ) -> None:
        super().__init__(lr=lr, eps=eps, betas=betas, schedule=schedule, label_smoothing=label_smoothing)
        self.weight_decay, self.pct_start, self.erase = weight_decay, pct_start, erase

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.erase:
            x, y = batch
            N, _, H, W = x.shape
            size = torch.randint(3, 9, (N, 2))
            corner = (torch.rand(N, 2) * (28 - size + 1)).long()
            i = torch.arange(28)
            rows = (i >= corner[:, :1]) & (i < corner[:, :1] + size[:, :1])
            cols = (i >= corner[:, 1:]) & (i < corner[:, 1:] + size[:, 1:])
            hole = (rows[:, :, None] & cols[:, None, :] & (torch.rand(N, 1, 1) < self.erase))[:, None]
            x = torch.where(hole, x.amin(), x)
            batch = (x, y)
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        weights = [p for p in self.parameters() if p.ndim > 1]
        biases = [p for p in self.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": weights, "weight_decay": self.weight_decay}, {"params": biases, "weight_decay": 0.0}],
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            fused=True,
        )
        s = OneCycleLR(
            optimizer,
            self.lr,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=self.pct_start,
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": s, "interval": "step"}}


class LeNet5W(More, LeNet5):
    pass


class CNNW(More, CNN):
    pass
