"""Trained networks, loaded from their checkpoints without a Trainer."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning import LightningDataModule, LightningModule
from torch import Tensor

from src.data import ImageDataModule
from src.models import Classifier
from src.runs.checkpoints import MNIST, Checkpoint
from src.runs.trust import foreign_argument, imported_class
from src.system.errors import UserError, reason

BATCH = 128  # images at once; in larger batches, CNN takes nearly twice the time on the CPU
NOT_IMPORTED = (
    "which is not an imported torch module. If you trust it, import it in the module of your class, or name the config "
    "of the run, which may import it: --config config.yaml"
)
OPTIONS = {LightningModule: "model", LightningDataModule: "data"}


class TrainedNetwork:
    """A trained network on the CPU, in evaluation mode, with the data module that it was trained with.

    Args:
        path: A checkpoint.
        named: The class of its network, if the user named one with ``--model``.
        named_data: The class of its data module, if the user named one with ``--data``.

    Raises:
        UserError: The file cannot be used, or its network or data module belongs to a module that is not imported.
    """

    def __init__(self, path: Path, named: str | None = None, named_data: str | None = None) -> None:
        saved = Checkpoint.read(path)
        self.network = load_network(saved, named)
        class_path, data = trusted_data(saved, named_data)
        self.datamodule: Any = _rebuild(path, class_path, data, saved.data_arguments)
        if state := saved.content.get(data.__qualname__):  # such as the normalisation
            self.datamodule.load_state_dict(state)
        if isinstance(self.datamodule, ImageDataModule) and self.datamodule.seed is None:
            self.datamodule.seed = saved.seed  # it chose the held-out images

    def read(self, images: Tensor) -> Tensor:
        """Classify one batch of images.

        Args:
            images: uint8 (N, H, W) or (N, C, H, W) if the data module is an `ImageDataModule`, which normalises them.
                Else the inputs of a batch.

        Returns:
            Probabilities (N, K).
        """
        x_NX = self.datamodule.preprocess(images) if isinstance(self.datamodule, ImageDataModule) else images
        return self.network(x_NX.to(self.network.dtype)).softmax(dim=1)

    def probabilities(self, images: Tensor) -> Iterator[Tensor]:
        """Classify any number of images as `read` does. Yields: probabilities (n, K) of each batch."""
        for batch in images.split(BATCH):
            with torch.inference_mode():
                yield self.read(batch)


def load_network(saved: Checkpoint, named: str | None = None) -> LightningModule:
    """The network of a checkpoint, on the CPU, in evaluation mode. For arguments and errors see `TrainedNetwork`."""
    class_path, network_class = trusted_network(saved, named)
    network: LightningModule = _rebuild(saved.path, class_path, network_class, saved.arguments)
    load_weights(network, saved)
    network.eval()
    if isinstance(network, Classifier) and network.channels_last:
        network.to(memory_format=torch.channels_last)
    return network


def _parser_of(kind: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, "built", fail_untyped=False)
    return parser


def _rebuild(path: Path, class_path: str, kind: type, arguments: dict[str, Any]) -> Any:
    try:
        parser = _parser_of(kind)
        return parser.instantiate(parser.parse_object({"built": arguments})).built
    except Exception as error:  # the class may have changed, or raise anything
        raise UserError(f"{path} does not fit the current {class_path}: {reason(error)}") from None


def load_weights(network: LightningModule, saved: Checkpoint) -> None:
    """Load the weights of a checkpoint. Raises a `UserError` if they do not fit the network."""
    try:
        network.load_state_dict(saved.weights)
    except Exception as error:  # names or shapes differ, or a hook of the user's network raises
        name = f"{type(network).__module__}.{type(network).__qualname__}"
        raise UserError(f"{saved.path} does not fit the current {name}: {reason(error)}") from None


def trusted_network(saved: Checkpoint, named: str | None, config: bool = False) -> tuple[str, type[LightningModule]]:
    """The class of a saved network and its name, if its module is imported: a checkpoint must never cause an import.

    If the user named a class with ``--model``, it must be the same. `config` says that its arguments come from a config
    that the user named, which may import.

    Raises:
        UserError: There is no class path, it is not the named one, or its module is not imported; or an argument of the
            network is a `foreign_argument`.
    """
    class_path = saved.class_path or named
    if class_path is None:
        raise UserError(f"{saved.path} does not name its network. A command with one checkpoint takes it with --model.")
    network = _trusted(saved.path, class_path, named, LightningModule)
    if not config and (argument := foreign_argument(network, saved.arguments)):
        raise UserError(f"{saved.path} was made with {argument}, {NOT_IMPORTED}")
    return class_path, network


def trusted_data(saved: Checkpoint, named: str | None, config: bool = False) -> tuple[str, type[LightningDataModule]]:
    """The class of a saved data module and its name, as `trusted_network`."""
    class_path = saved.data_class_path or named or MNIST
    data = _trusted(saved.path, class_path, named, LightningDataModule)
    if not config and (argument := foreign_argument(data, saved.data_arguments)):
        raise UserError(f"The data of {saved.path} were made with {argument}, {NOT_IMPORTED}")
    return class_path, data


def _trusted(path: Path, class_path: str, named: str | None, base: type[Any]) -> type[Any]:
    found = imported_class(class_path, base)
    if named and imported_class(named, base) is not found:
        short, named = (path.rpartition(".")[2] for path in (class_path, named))
        raise UserError(f"{path} contains {short}, not {named}.")
    if found is None:
        raise UserError(f"{path} contains {class_path}. If you trust that module, add: --{OPTIONS[base]} {class_path}")
    return found


def follow_data_set(settings: Namespace) -> None:
    """Set the `num_classes` of a network that has such an argument, if the data set says how many there are.

    A number that differs from the default of the network is the user's; a wrong one is refused before the first step.
    """
    data = imported_class(settings.data.class_path, ImageDataModule)
    network, arguments = imported_class(settings.model.class_path), settings.model.get("init_args") or {}
    if data is None or network is None or "num_classes" not in arguments:
        return
    if arguments["num_classes"] == _parser_of(network).get_defaults().built["num_classes"]:
        built = _parser_of(data).instantiate(Namespace(built=settings.data.init_args)).built
        arguments["num_classes"] = len(built.classes) or arguments["num_classes"]


def import_class(class_path: str, base: type[Any] = LightningModule) -> str:
    """Import a class that the user named, and return its full name. Raises a `UserError` if it is no `base`."""
    kind = "network" if base is LightningModule else "data module"
    if "." not in class_path:
        class_path = f"src.{'models' if base is LightningModule else 'data'}.{class_path}"
    try:
        importlib.import_module(class_path.rpartition(".")[0])
    except Exception as error:  # the module may raise anything
        raise UserError(f"{class_path} is not a {kind}: {reason(error)}") from None
    if imported_class(class_path, base) is None:
        raise UserError(f"{class_path} is not a {kind}: name a {base.__name__} as module.Class.")
    return class_path
