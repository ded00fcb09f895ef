"""Trained networks, read from their checkpoints without a Trainer."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from src.data import MNISTDataModule, RawBatch
from src.models import Classifier
from src.runs.checkpoints import load_checkpoint
from src.system.errors import UserError

BATCH = 500  # images at once


class TrainedNetwork:
    """A network on the CPU, in evaluation mode, with the normalisation it was trained with.

    Args:
        path: A checkpoint.

    Raises:
        UserError: The file can't be used, or holds a network of a module that nobody has imported.
    """

    def __init__(self, path: Path) -> None:
        checkpoint = load_checkpoint(path)
        arguments = {
            name: value for name, value in checkpoint.get("hyper_parameters", {}).items() if not name.startswith("_")
        }
        class_path = checkpoint.get("hyper_parameters", {}).get("_class_path")
        if not isinstance(class_path, str):
            raise UserError(f"{path} doesn't say which network it holds.")
        network = imported_network(class_path)
        if network is None:
            raise UserError(f"{path} holds {class_path}. If you trust that module, name it: --model {class_path}")
        data = checkpoint.get("datamodule_hyper_parameters", {})
        try:
            self.datamodule = MNISTDataModule(**{name: data[name] for name in data if not name.startswith("_")})
            self.network = network(**arguments).eval().to(memory_format=torch.channels_last)
            self.network.load_state_dict(checkpoint["state_dict"])
        except (TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} doesn't fit {class_path} as it is now: {reason[:200]}") from None

    def read(self, images_NHW: Tensor) -> Tensor:
        """Read raw images, (N, 28, 28) uint8. Returns: probabilities (N, K)."""
        raw = RawBatch(images_NHW, torch.empty(0), weight=1)
        batch = self.datamodule.on_after_batch_transfer(raw, dataloader_idx=0)
        return self.network.predict_step(batch, batch_idx=0)

    def probabilities(self, images_NHW: Tensor) -> Iterator[Tensor]:
        """Read any number of raw images, a batch at a time. Yields: (n, K) for each."""
        for images in images_NHW.split(BATCH):
            with torch.inference_mode():
                yield self.read(images)


def imported_network(class_path: str) -> type[Classifier] | None:
    """The class of that name if its module is already imported: a checkpoint never causes an import."""
    module, _, name = class_path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, Classifier) else None


def import_network(class_path: str) -> type[Classifier]:
    """The class of that name, which the user has named: its module is imported.

    Raises:
        UserError: There is none.
    """
    try:
        importlib.import_module(class_path.rpartition(".")[0])
    except (ImportError, ValueError) as error:
        raise UserError(f"{class_path} is not a network: {error}.") from None
    network = imported_network(class_path)
    if network is None:
        raise UserError(f"{class_path} is not a network: name a subclass of src.models.Classifier as module.Class.")
    return network
