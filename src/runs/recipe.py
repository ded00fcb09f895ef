"""The settings that make a training what it is."""

from collections.abc import Iterator
from typing import Any

from src.runs.folder import Run
from src.system.errors import UserError

# What may differ between runs of the same recipe: the seed, and what isn't part of the training.
SEED = frozenset({"seed_everything", "data.seed"})
SURROUNDINGS = frozenset(
    {
        "config",
        "ckpt_path",
        "resume",
        "save_every_n_steps",
        "save_every_n_minutes",
        "data.data_dir",
        "trainer.default_root_dir",
        "trainer.enable_progress_bar",
        "trainer.enable_model_summary",
        "tensorboard",
    }
)


def recipe(config: dict[str, Any], ignore: frozenset[str] = SEED | SURROUNDINGS) -> dict[str, Any]:
    """The settings that make a training what it is, one entry for each that is set, as ``trainer.max_epochs``.

    A setting that is null counts as one that isn't there: so runs go on being of the same recipe when a new one comes.
    """

    def flatten(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict) and value and name not in ignore:
            for key, inner in value.items():
                yield from flatten(inner, f"{name}.{key}" if name else str(key))
        elif name not in ignore and value is not None:
            yield name, value

    return dict(flatten(config, ""))


def has_recipe(run: Run, settings: dict[str, Any], ignore: frozenset[str] = SEED | SURROUNDINGS) -> bool:
    """Whether a run was started with these settings; False where its config can't be read."""
    try:
        return recipe(run.config, ignore) == settings
    except UserError:
        return False


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What differs between two recipes, as ``trainer.max_epochs: 12 and 30``."""
    return [
        f"{name}: {one.get(name)} and {other.get(name)}"
        for name in sorted(one | other)
        if one.get(name) != other.get(name)
    ]
