"""What a command starts from: the settings, and the checkpoint or the run that they name."""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from src.cli.messages import NAME_A_NETWORK
from src.data import MNISTDataModule
from src.runs.checkpoints import MNIST, Checkpoint
from src.runs.folder import Run, find_runs, runs_folder, short_name
from src.runs.network import trusted_data, trusted_network
from src.runs.recipe import Role, differences, has_recipe, place, recipe, recipe_of, settings_with
from src.runs.trust import refuse_foreign_config
from src.system.errors import UserError
from src.system.files import local_path
from src.training.callbacks import describe_result


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


def named_in(args: list[str]) -> argparse.Namespace:
    """What the command line names as ckpt_path, resume and config, before it is parsed."""
    scanner = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--ckpt_path", "--resume"):
        scanner.add_argument(option, nargs="?")
    scanner.add_argument("--config", "-c", nargs="?", action="append")
    named = scanner.parse_known_args(args)[0]
    named.config = named.config or []
    if named.ckpt_path in ("best", "last"):
        runs = [Path(path).parent for path in named.config if (Path(path).parent / "checkpoints").is_dir()]
        if not runs:
            file = f"RUN/checkpoints/{named.ckpt_path}.ckpt"
            raise UserError(f"--ckpt_path {named.ckpt_path} needs a run. Name its config, RUN/config.yaml, or {file}.")
        named.ckpt_path = str(runs[-1] / "checkpoints" / f"{named.ckpt_path}.ckpt")
    for name in ("ckpt_path", "resume"):
        if path := getattr(named, name):
            setattr(named, name, local_path(path))
    if named.ckpt_path is not None and named.resume is not None:
        raise UserError("--resume continues a run, --ckpt_path starts a new run: give only one of them.")
    return named


def expand_paths(settings: Namespace) -> None:
    """Expand ``~`` and ``$VAR`` in all paths. Raises a `UserError` for URLs."""
    for name in map(place, settings_with(Role.PATH)):
        value = settings.get(name)
        if isinstance(value, str):
            settings[name] = local_path(value)
        elif isinstance(value, list):
            settings[name] = [local_path(path) for path in value]


# --- A checkpoint ----------------------------------------------------------------------------------------------------


def saved_settings(checkpoint: Checkpoint, model: str | None, data: str | None, config: bool = False) -> dict[str, Any]:
    """The network and data settings of a checkpoint, as defaults for the parser.

    Args:
        checkpoint: The checkpoint.
        model: The class of the network, if the user names one.
        data: The class of the data module, if the user names one.
        config: Whether the user names them in a config.

    Raises:
        UserError: The checkpoint contains another class than the named one, or names one that is not imported: a
            checkpoint must never cause an import.
    """
    class_path, _ = trusted_network(checkpoint, model, config)
    data_class_path, _ = trusted_data(checkpoint, data, config)
    arguments = checkpoint.data_arguments
    if data_class_path == MNIST:
        arguments = dict(MNISTDataModule().hparams) | arguments  # an older checkpoint lacks newer settings
    saved = {
        "model": {"class_path": class_path, "init_args": checkpoint.arguments},
        "data": {"class_path": data_class_path, "init_args": arguments},
    }
    return saved if checkpoint.seed is None else saved | {"seed_everything": checkpoint.seed}


def refuse_contradictions(settings: Namespace, parser: LightningArgumentParser, saved: dict[str, Any]) -> None:
    """Raise a `UserError` if a setting of the user differs from that of the checkpoint. See `saved_settings`."""
    # Classes as their names, tuples as lists.
    plain = yaml.safe_load(parser.dump(settings, skip_unset=False))
    for section in ("model", "data"):
        class_path, of_checkpoint = plain[section]["class_path"], saved[section]["class_path"]
        if class_path != of_checkpoint:
            raise UserError(f"{settings.ckpt_path} contains {short_name(of_checkpoint)}, not {short_name(class_path)}.")
        if class_path == MNIST or section == "model":  # other data modules may be set for the evaluation
            of_user = plain[section].get("init_args", {})
            for name, value in saved[section]["init_args"].items():
                made_with = list(value) if isinstance(value, tuple) else value  # a checkpoint may contain either
                role = f"{section}.{name}" if section == "data" else f"{section}.init_args.{name}"
                if of_user.get(name) != made_with and role not in settings_with(Role.EVALUATION):
                    contradiction = f"--{section}.{name} {of_user.get(name)} contradicts {settings.ckpt_path}"
                    raise UserError(f"{contradiction}, which was made with {value}.")
    seed, of_user = saved.get("seed_everything"), plain["seed_everything"]
    if plain["data"]["class_path"] == MNIST and seed not in (None, of_user):
        raise UserError(f"--seed_everything {of_user} contradicts {settings.ckpt_path}, which was made with {seed}.")


# --- A run to resume -------------------------------------------------------------------------------------------------


def named_run(path: str) -> Run:
    """The run of a folder, or of a checkpoint in it. Ends the program if the run is finished."""
    named = Path(path)
    run = Run(named.parent.parent if named.is_file() else named)
    if not run.config_file.is_file():
        raise UserError(f"{path} is not a run: there is no {run.config_file}.")
    if run.is_finished:
        try:
            result = describe_result(run.results["model"], "test", run.results["test"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{run.folder / 'results.json'} is damaged, or another version wrote it.") from None
        print(f"{run.folder} is finished: {result}.")
        raise SystemExit(0)
    if not isinstance(run.config.get("trainer"), dict):
        raise UserError(f"{run.config_file} is damaged: it has no settings of the trainer.")
    return run


def with_config_of(run: Run, args: list[str]) -> list[str]:
    """The command line with the config of a run before all other settings, if it names nothing to be imported."""
    refuse_foreign_config(run, args)
    options = args.index("fit") + 1
    return [*args[:options], "--config", str(run.config_file), *args[options:]]


def newest_unfinished_run(settings: Namespace, parser: LightningArgumentParser) -> Run | None:
    """The newest unfinished run with these settings. Every process of a training finds the same one."""
    if settings.model is None:
        raise UserError(NAME_A_NETWORK)
    wanted = recipe_of(settings, parser, Role.SURROUNDINGS)
    runs = [run for run in find_runs(runs_folder(settings)) if not run.is_finished]
    return next((run for run in reversed(runs) if has_recipe(run, wanted, Role.SURROUNDINGS)), None)


def refuse_other_settings(run: Run, settings: Namespace, parser: LightningArgumentParser) -> None:
    """Raise a `UserError` if a setting differs from that of the run, and decides the result."""
    wanted = recipe_of(settings, parser, Role.SURROUNDINGS)
    if changed := differences(wanted, recipe(run.config, Role.SURROUNDINGS)):
        raise UserError(f"{run.folder} was started with other settings: {', '.join(changed)}.")


def newest_checkpoint(run: Run, named: Path) -> Checkpoint | None:
    """The checkpoint `named`, or else the newest one of the run that is not damaged. None if it has none yet."""
    if named.is_file():
        return Checkpoint.read(named)
    try:
        return Checkpoint.read(run.checkpoint) if run.checkpoint.is_file() else None
    except UserError as error:
        if not run.previous_checkpoint.is_file():
            raise
        checkpoint = Checkpoint.read(run.previous_checkpoint)
        print(f"{error}\nContinuing from the previous checkpoint: {checkpoint.path}", file=sys.stderr)
        return checkpoint
