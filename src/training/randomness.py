"""The state of the random number generators, as a part of the checkpoint.

Private names used here: Lightning's ``_FitLoop._load_combined_loader_states``, because Lightning forgets the position
in the epoch if `configure_optimizers` has asked for the number of steps, and ``_FitLoop._data_fetcher``, whose iterator
it makes too early.
"""

import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from src.system.processes import gather, pick_by_rank


class RandomState(Callback):
    """Makes a resumed training draw the same random numbers as one that was not interrupted.

    Each process has its own state. In a new training every process but the first gets a new seed. With one seed for
    all, all devices would use the same dropout masks.

    Args:
        seed: Of the training.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loaded: list[dict[str, Any]] = []  # one state for each process
        self.device = torch.device("cpu")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.device = pl_module.device
        trainer.fit_loop._load_combined_loader_states()
        if states := pick_by_rank(self.loaded):
            set_random_state(states[0], self.device)
            # An ordinary loader draws random numbers for its iterator, which Lightning has made before this moment.
            iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
        elif trainer.global_rank > 0:
            torch.manual_seed(int(np.random.SeedSequence((self.seed, trainer.global_rank)).generate_state(1)[0]))

    def state_dict(self) -> dict[str, Any]:
        return {"states": gather(get_random_state(self.device))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loaded = state_dict["states"]


def get_random_state(device: torch.device) -> dict[str, Any]:
    """The states of this process and its device, as plain data that `torch.load` reads with `weights_only=True`."""
    kind, keys, *rest = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (kind, list(map(int, keys)), *rest),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Set the generators of this process and its device to a state from `get_random_state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
