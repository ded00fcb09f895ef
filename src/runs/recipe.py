"""The recipe of a training: the settings that decide its result."""

from collections.abc import Iterator
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from src.runs.folder import Run
from src.system.errors import UserError

# Settings that may differ between runs of the same recipe: the seed, and what does not change the result.
SEED = frozenset({"seed_everything", "data.seed"})
SURROUNDINGS = frozenset(
    {
        "config",
        "ckpt_path",
        "resume",
        "save_every_n_steps",
        "save_every_n_minutes",
        "data.data_dir",
        "model.init_args.compile",
        "trainer.accelerator",
        "trainer.default_root_dir",
        "trainer.detect_anomaly",
        "trainer.devices",
        "trainer.enable_progress_bar",
        "trainer.enable_model_summary",
        "trainer.log_every_n_steps",
        "trainer.num_nodes",
        "trainer.profiler",
        "trainer.strategy",
        "tensorboard",
    }
)
LIMITS = "trainer.limit_"


def recipe(config: dict[str, Any], ignore: frozenset[str] = SEED | SURROUNDINGS) -> dict[str, Any]:
    """Flatten the settings of a run into one entry each, such as ``trainer.max_epochs``, without those to ignore.

    A setting that is null is left out, so that old runs keep their recipe when a new setting is introduced. So is a
    limit of 1.0, all batches: for Python it is equal to 1, one batch.
    """

    def flatten(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value and name not in ignore:
            for key, inner in value.items():
                yield from flatten(inner, f"{name}.{key}" if name else str(key))
        elif name not in ignore and value is not None and not (name.startswith(LIMITS) and repr(value) == "1.0"):
            yield name, value

    return dict(flatten(config, ""))


def recipe_of(
    config: Namespace, parser: LightningArgumentParser, ignore: frozenset[str] = SEED | SURROUNDINGS
) -> dict[str, Any]:
    """The `recipe` of parsed settings, as it would be read from the config.yaml of a run."""
    return recipe(yaml.safe_load(parser.dump(config, skip_unset=False)), ignore)


def has_recipe(run: Run, settings: dict[str, Any], ignore: frozenset[str] = SEED | SURROUNDINGS) -> bool:
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
