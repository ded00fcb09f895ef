"""The settings of a command: what the user gave, compared with what a checkpoint or a run was made with."""

from collections.abc import Container
from itertools import islice
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from src.data import MNISTDataModule
from src.runs.checkpoints import SavedNetwork
from src.runs.network import trusted_network
from src.runs.recipe import Role, settings_with
from src.system.errors import UserError


def add_trainer_options(parser: LightningArgumentParser) -> None:
    """Add the options of the Trainer, with the defaults of this package."""
    # Their type in Lightning may become `float | int`: `typing` reorders unions. Then 1 would mean 1.0, all batches.
    limits = [f"limit_{kind}_batches" for kind in ("train", "val", "test", "predict")]
    parser.add_class_arguments(
        Trainer, "trainer", skip=set(limits), fail_untyped=False, instantiate=False, sub_configs=True
    )
    for name in limits:
        parser.add_argument(f"--trainer.{name}", type=int | float | None, help="A number of batches, or a share: 0.1.")
    parser.set_defaults({"trainer.max_epochs": 12, "trainer.num_sanity_val_steps": 0, "trainer.devices": 1})


def saved_settings(ckpt_path: str, named: Namespace | None) -> dict[str, Any]:
    """The network and data settings of a checkpoint, as defaults for the parser. `named` is the value of ``--model``.

    Raises:
        UserError: The file cannot be used, contains another network than the named one, or names a class that is not
            imported: a checkpoint must never cause an import.
    """
    saved = SavedNetwork.read(ckpt_path)
    class_path, _ = trusted_network(saved, named.class_path if named else None)
    data = dict(MNISTDataModule().hparams) | saved.data_arguments  # an older checkpoint lacks newer settings
    return {
        "model": {"class_path": class_path, "init_args": saved.arguments},
        "seed_everything": data.pop("seed"),
        **{f"data.{key}": value for key, value in data.items()},
    }


def refuse_contradictions(settings: Namespace, parser: LightningArgumentParser, saved: dict[str, Any]) -> None:
    """Raise a `UserError` if a setting given by the user differs from that of the checkpoint."""
    plain = yaml.safe_load(parser.dump(settings, skip_unset=False))  # classes as their names, tuples as lists
    given = {"seed_everything": plain["seed_everything"]} | {f"data.{key}": plain["data"][key] for key in plain["data"]}
    given |= {f"model.{key}": value for key, value in plain["model"].get("init_args", {}).items()}
    expected = {key: value for key, value in saved.items() if key != "model"}
    expected |= {f"model.{key}": value for key, value in saved["model"]["init_args"].items()}
    for key, value in expected.items():
        is_free = key.replace("model.", "model.init_args.") in settings_with(Role.EVALUATION)
        made_with = list(value) if isinstance(value, tuple) else value  # a checkpoint may contain either
        if not is_free and given.get(key) != made_with:
            raise UserError(f"--{key} {given.get(key)} contradicts {settings.ckpt_path}, which was made with {value}.")


def configs_first(words: list[str], commands: Container[str]) -> list[str]:
    """Move the configs of a command before its options, so that an option overrides every config."""
    command = next((number for number, word in enumerate(words) if word in commands), len(words)) + 1
    configs, options, rest = [], [], iter(words[command:])
    for word in rest:
        if word.partition("=")[0] in ("--config", "-c"):
            configs += [word, *([] if "=" in word else islice(rest, 1))]
        else:
            options.append(word)
    return [*words[:command], *configs, *options]
