"""Trained networks, loaded from their checkpoints without a Trainer."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from lightning import LightningModule
from torch import Tensor

from src.data import MNISTDataModule
from src.models import Classifier
from src.runs.checkpoints import Checkpoint
from src.runs.trust import foreign_argument, imported_module
from src.system.errors import UserError, reason

BATCH = 128  # images at once; in larger batches, CNN takes nearly twice the time on the CPU


class TrainedNetwork:
    """A trained network on the CPU, in evaluation mode, with the normalisation that it was trained with.

    Args:
        path: A checkpoint.
        named: The class of its network, if the user named one with ``--model``.

    Raises:
        UserError: The file cannot be used, or its network belongs to a module that is not imported.
    """

    def __init__(self, path: Path, named: str | None = None) -> None:
        saved = Checkpoint.read(path)
        class_path, network = trusted_network(saved, named)
        parser = ArgumentParser(exit_on_error=False)
        try:
            self.datamodule = MNISTDataModule(**saved.data_arguments)
            self.datamodule.load_state_dict(saved.content.get("MNISTDataModule", {}))  # its normalisation
            parser.add_class_arguments(network, "network", fail_untyped=False)
            config = parser.parse_object({"network": saved.arguments})
            self.network: LightningModule = parser.instantiate(config).network
        except Exception as error:  # the class may have changed, or raise anything
            raise UserError(f"{path} does not fit the current {class_path}: {reason(error)}") from None
        load_weights(self.network, saved)
        self.network.eval()
        if isinstance(self.network, Classifier) and self.network.channels_last:
            self.network.to(memory_format=torch.channels_last)

    def read(self, images_NHW: Tensor) -> Tensor:
        """Classify one batch of raw images, uint8 (N, 28, 28). Returns: probabilities (N, K)."""
        x_NCHW = self.datamodule.preprocess(images_NHW)
        return self.network(x_NCHW.to(self.network.dtype)).softmax(dim=1)

    def probabilities(self, images_NHW: Tensor) -> Iterator[Tensor]:
        """Classify any number of raw images, one batch at a time. Yields: probabilities (n, K) of each batch."""
        for batch_NHW in images_NHW.split(BATCH):
            with torch.inference_mode():
                yield self.read(batch_NHW)


def load_weights(network: LightningModule, saved: Checkpoint) -> None:
    """Load the weights of a checkpoint. Raises a `UserError` if they do not fit the network."""
    try:
        network.load_state_dict(saved.weights)
    except Exception as error:  # names or shapes differ, or a hook of the user's network raises
        name = f"{type(network).__module__}.{type(network).__qualname__}"
        raise UserError(f"{saved.path} does not fit the current {name}: {reason(error)}") from None


def trusted_network(saved: Checkpoint, named: str | None) -> tuple[str, type[LightningModule]]:
    """The class of a saved network and its name, if its module is imported: a checkpoint must never cause an import.

    If the user named a class with ``--model``, it must be the same.

    Raises:
        UserError: There is no class path, it is not the named one, or its module is not imported; or an argument of the
            network is a `foreign_argument`.
    """
    class_path = saved.class_path or named
    if class_path is None:
        raise UserError(f"{saved.path} does not name its network. A command with one checkpoint takes it with --model.")
    network = imported_network(class_path)
    if named and imported_network(named) is not network:
        short, named = (path.rpartition(".")[2] for path in (class_path, named))
        raise UserError(f"{saved.path} contains {short}, not {named}.")
    if network is None:
        raise UserError(f"{saved.path} contains {class_path}. If you trust that module, add: --model {class_path}")
    if argument := foreign_argument(network, saved.arguments):
        raise UserError(
            f"{saved.path} was made with {argument}, which is not an imported torch module. "
            "If you trust it, import it in the module of your network."
        )
    return class_path, network


def imported_network(class_path: str) -> type[LightningModule] | None:
    """The network class of that name if its module is imported already, else None."""
    network = imported_module(class_path)
    return network if network is not None and issubclass(network, LightningModule) else None


def import_network(class_path: str) -> str:
    """Import a network class that the user named, and return its full name. Raises a `UserError` if there is none."""
    if "." not in class_path:
        class_path = f"src.models.{class_path}"
    try:
        importlib.import_module(class_path.rpartition(".")[0])
    except Exception as error:  # the module may raise anything
        raise UserError(f"{class_path} is not a network: {reason(error)}") from None
    if imported_network(class_path) is None:
        raise UserError(f"{class_path} is not a network: name a LightningModule as module.Class.")
    return class_path
