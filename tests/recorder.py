"""A callback for tests: what each process of a training saw, as JSON."""

import json
import os
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer


class Recorder(Callback):
    """Writes ``rank_<r>.json`` into the folder RECORD, with the metrics in full precision."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.values["random"] = torch.rand(1, generator=torch.Generator().set_state(torch.get_rng_state())).item()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.values["weights"] = sum(parameter.double().abs().sum().item() for parameter in pl_module.parameters())
        self.record(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.record(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.record(trainer)

    def record(self, trainer: Trainer) -> None:
        self.values |= {name: value.item() for name, value in trainer.callback_metrics.items()}
        path = Path(os.environ["RECORD"], f"rank_{trainer.global_rank}.json")
        path.write_text(json.dumps(self.values))
