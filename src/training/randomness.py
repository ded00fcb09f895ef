"""The state of the random number generators, as a part of the checkpoint."""

import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from src.system.processes import gather, pick_by_rank


class RandomState(Callback):
    """Lets a resumed training draw the random numbers that it would have drawn without the interruption.

    Each process keeps a state of its own. In a new training, each process but the first is seeded anew:
    with one seed for all, the images of all devices would get the same dropout masks.
    """

    def __init__(self) -> None:
        self.loaded: list[dict[str, Any]] = []  # one state for each process

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning forgets the position in the epoch where `configure_optimizers` has asked for the number of steps.
        trainer.fit_loop._load_combined_loader_states()
        if states := pick_by_rank(self.loaded):
            restore(states[0])
        elif trainer.global_rank > 0:
            seed = trainer.datamodule.seed  # type: ignore[attr-defined]
            torch.manual_seed(int(np.random.SeedSequence((seed, trainer.global_rank)).generate_state(1)[0]))

    def state_dict(self) -> dict[str, Any]:
        return {"states": gather(collect())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loaded = state_dict["states"]


def collect() -> dict[str, Any]:
    """The states of this process, as plain data that `torch.load` reads with `weights_only=True`."""
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, list(map(int, keys)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),
    }


def restore(state: dict[str, Any]) -> None:
    """Set the generators of this process to what `collect` found."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    torch.cuda.set_rng_state_all(state["cuda"])
