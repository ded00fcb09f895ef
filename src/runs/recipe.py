"""The settings of a training, what each of them decides, and the recipe: those that decide the result."""

from collections.abc import Iterator
from enum import Flag, auto
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from src.runs.checkpoints import MNIST, data_settings
from src.runs.folder import Run
from src.system.errors import UserError


class Role(Flag):
    """What a setting is there for, other than the result of a training."""

    SEED = auto()  # tells the runs of a recipe apart
    SURROUNDINGS = auto()  # changes no result: where files are, what is shown, which devices compute
    EVALUATION = auto()  # may differ between a training and the evaluation of its checkpoint
    SEARCH = auto()  # belongs to a whole search: all trials share it, and no trial changes it
    PATH = auto()  # names files or folders


# A setting without a row decides the result of a training, and nothing else. A row holds for all settings below it.
# "data.…" are the settings of `MNISTDataModule`; those of another class are "data.init_args.…".
SETTINGS = {
    "also": Role.SURROUNDINGS | Role.PATH,
    "ckpt_path": Role.SURROUNDINGS | Role.PATH,
    "config": Role.SURROUNDINGS,
    "contact_sheet": Role.SURROUNDINGS | Role.PATH,
    "images": Role.SURROUNDINGS | Role.PATH,
    "resume": Role.SURROUNDINGS | Role.PATH,
    "save_every_n_minutes": Role.SURROUNDINGS,
    "save_every_n_steps": Role.SURROUNDINGS,
    "seed_everything": Role.SEED | Role.SEARCH,
    "tensorboard": Role.SURROUNDINGS | Role.SEARCH,
    "data.batch_size": Role.EVALUATION,
    "data.classes": Role.SEARCH,
    "data.dataset": Role.SEARCH,
    "data.data_dir": Role.SURROUNDINGS | Role.EVALUATION | Role.SEARCH | Role.PATH,
    "data.seed": Role.SEARCH,
    "data.val_size": Role.SEARCH,
    "model.init_args.compile": Role.SURROUNDINGS | Role.EVALUATION,
    "model.init_args.num_classes": Role.SURROUNDINGS,
    "trainer.accelerator": Role.SURROUNDINGS | Role.SEARCH,
    "trainer.default_root_dir": Role.SURROUNDINGS | Role.PATH,
    "trainer.detect_anomaly": Role.SURROUNDINGS,
    "trainer.devices": Role.SURROUNDINGS,
    "trainer.enable_model_summary": Role.SURROUNDINGS,
    "trainer.enable_progress_bar": Role.SURROUNDINGS,
    "trainer.limit_test_batches": Role.SEARCH,
    "trainer.limit_train_batches": Role.SEARCH,
    "trainer.limit_val_batches": Role.SEARCH,
    "trainer.log_every_n_steps": Role.SURROUNDINGS,
    "trainer.num_nodes": Role.SURROUNDINGS,
    "trainer.profiler": Role.SURROUNDINGS,
    "trainer.strategy": Role.SURROUNDINGS,
}
ON_MNIST = ("data.dataset", "mnist")
NOT_IN_A_RECIPE = Role.SEED | Role.SURROUNDINGS


def settings_with(role: Role) -> list[str]:
    """The settings that have one of the roles in `role`."""
    return [name for name, roles in SETTINGS.items() if roles & role]


def place(setting: str) -> str:
    """Where the parser keeps a setting: ``data.init_args.val_size`` for ``data.val_size``."""
    section, _, name = setting.partition(".")
    return f"data.init_args.{name}" if section == "data" and not name.startswith("init_args.") else setting


def recipe(config: dict[str, Any], ignore: Role = NOT_IN_A_RECIPE) -> dict[str, Any]:
    """Flatten the settings of a run into one entry each, such as ``trainer.max_epochs``, without those to ignore.

    A setting that is null is left out, so that old runs keep their recipe when a new setting is introduced, and so are
    the data set MNIST and its class. A limit of 1.0, all batches, is left out because for Python it is equal to 1, one
    batch.
    """

    def flatten(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if SETTINGS.get(name, Role(0)) & ignore or value is None:
            return
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                yield from flatten(inner, f"{name}.{key}" if name else str(key))
        elif not (name.startswith("trainer.limit_") and repr(value) == "1.0") and (name, value) != (
            "data.dataset",
            "mnist",
        ):
            yield name, value

    class_path, arguments = data_settings(config)
    if class_path == MNIST and "data" in config:
        config = config | {"data": arguments}
    return dict(flatten(config, ""))


def recipe_of(config: Namespace, parser: LightningArgumentParser, ignore: Role = NOT_IN_A_RECIPE) -> dict[str, Any]:
    """The `recipe` of parsed settings, as it would be read from the config.yaml of a run."""
    return recipe(yaml.safe_load(parser.dump(config, skip_unset=False)), ignore)


def has_recipe(run: Run, settings: dict[str, Any], ignore: Role = NOT_IN_A_RECIPE) -> bool:
    """Whether a run has this recipe. False if its config cannot be read."""
    try:
        return recipe(run.config, ignore) == settings
    except UserError:
        return False


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The settings that differ between two recipes, such as ``trainer.max_epochs: 12 and 30``."""
    return [
        f"{name}: {one.get(name)} and {other.get(name)}"
        for name in sorted(one | other)
        if one.get(name) != other.get(name)
    ]
