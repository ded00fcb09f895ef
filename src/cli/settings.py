"""The settings of a training: those on the command line, against what its checkpoint or its run tells."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from src.data import MNISTDataModule
from src.runs.checkpoints import load_checkpoint
from src.runs.network import imported_network
from src.runs.recipe import recipe
from src.system.errors import UserError

# Settings that may differ from those of the training: they don't change what is computed.
FREE_SETTINGS = {"data.data_dir", "data.batch_size"}


def saved_settings(ckpt_path: str, named: Namespace | None) -> dict[str, Any]:
    """The network and data settings that a checkpoint was made with, as defaults for the parser.

    Raises:
        UserError: The file can't be used, holds another network than the one named with ``--model``,
            or one of a module that nobody has imported: a checkpoint never causes an import.
    """
    checkpoint = load_checkpoint(ckpt_path)
    network = {key: value for key, value in checkpoint.get("hyper_parameters", {}).items() if key != "_instantiator"}
    class_path = network.pop("_class_path", named.class_path if named else None)
    if not isinstance(class_path, str):
        raise UserError(f"{ckpt_path} doesn't say which network it holds: name it with --model.")
    if named and imported_network(named.class_path) is not imported_network(class_path):
        raise UserError(f"{ckpt_path} holds {short_name(class_path)}, not {short_name(named.class_path)}.")
    for inner in _class_paths(network):
        if inner.rpartition(".")[0] not in sys.modules:
            raise UserError(f"{ckpt_path} names {inner}, of a module that is not imported: it is refused.")
    if imported_network(class_path) is None:
        raise UserError(f"{ckpt_path} holds {class_path}. If you trust that module, name it: --model {class_path}")
    data = dict(MNISTDataModule().hparams)  # what a checkpoint of an earlier version doesn't tell
    data |= {
        key: value
        for key, value in checkpoint.get("datamodule_hyper_parameters", {}).items()
        if not key.startswith("_")
    }
    return {
        "model": {"class_path": class_path, "init_args": network},
        "seed_everything": data.pop("seed", 0),
        **{f"data.{key}": value for key, value in data.items()},
    }


def _class_paths(value: Any) -> Iterator[str]:
    """Every class path inside the arguments of a network, at any depth: the parser would import them."""
    if isinstance(value, dict):
        if "class_path" in value:
            yield str(value["class_path"])
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _class_paths(inner)


def refuse_contradictions(settings: Namespace, saved: dict[str, Any]) -> None:
    """Raise a `UserError` if a setting given by the user differs from that of the checkpoint."""
    expected = {key: value for key, value in saved.items() if key != "model"}
    expected |= {f"model.{key}": value for key, value in saved["model"]["init_args"].items()}
    for key, value in expected.items():
        given = settings.get(key.replace("model.", "model.init_args.", 1))
        if key not in FREE_SETTINGS and _plain(given) != _plain(value):
            raise UserError(f"--{key} {given} contradicts {settings.ckpt_path}, which was made with {value}.")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value  # a checkpoint may hold either


def recipe_of(config: Namespace, parser: LightningArgumentParser, ignore: frozenset[str]) -> dict[str, Any]:
    """The `recipe` of what `parser` has read, as it would be in the config.yaml of a run."""
    return recipe(yaml.safe_load(parser.dump(config, skip_none=False)), ignore)


def runs_folder(config: Namespace) -> Path:
    """Where the runs of that network lie."""
    return Path(config.trainer.default_root_dir or ".", "lightning_logs", short_name(config.model.class_path).lower())


def short_name(class_path: str) -> str:
    """The class alone, without its module."""
    return class_path.rpartition(".")[2]
