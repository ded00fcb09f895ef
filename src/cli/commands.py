"""The commands that need no Trainer: what each is told on the command line, and what it does with it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from src.cli.messages import NAME_A_CHECKPOINT, PROGRAM
from src.cli.settings import recipe_of, runs_folder, short_name
from src.runs.folder import run_folder
from src.runs.network import TrainedNetwork, import_network
from src.runs.recipe import SEED, SURROUNDINGS
from src.system.errors import UserError


class Command(NamedTuple):
    """A subcommand beside those of LightningCLI."""

    add_arguments: Callable[[LightningArgumentParser], None]
    # Called with what was given, the parser of `fit`, and the words of the command line.
    run: Callable[[Namespace, LightningArgumentParser, list[str]], None]


def _add_compare_arguments(parser: LightningArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="*", default=[], metavar="FOLDER", help="Folder with finished runs, at any depth."
    )
    parser.add_argument("--train", nargs="+", metavar="CONFIG", help="Train these configs first, where runs lack.")
    parser.add_argument("--seeds", type=PositiveInt, default=5, help="How many runs of each config --train makes.")
    parser.add_argument(
        "--margin",
        type=NonNegativeFloat,
        default=10.0,
        help="The largest difference that doesn't matter, in test images.",
    )
    parser.add_argument("--name", type=str, help="Name of the comparison; by default that of the networks.")
    parser.add_argument("--output", type=str, default="comparison", help="Folder of all comparisons.")
    parser.add_argument("--data_dir", type=str, help="Folder of the data; by default that of the first run.")
    parser.add_argument("--model", nargs="+", metavar="MODULE.CLASS", help="Networks of your own that runs hold.")


def _compare(given: Namespace, fit: LightningArgumentParser, args: list[str]) -> None:
    from src.comparison.compare import Trainings, compare  # scipy and jinja2: half a second for the other commands

    if not given.folders and not given.train:
        raise UserError("Name folders of runs, or configs: compare lightning_logs/lenet5 lightning_logs/cnn")
    if given.name is not None and (not given.name or Path(given.name).name != given.name):
        raise UserError(f"--name {given.name!r} is not the name of a folder.")
    for class_path in given.model or []:
        import_network(class_path)
    planned: list[Trainings] = []
    for path in given.train or []:
        config = fit.parse_args(["--config", path])
        if config.model is None:
            raise UserError(f"{path} names no network.")
        settings = recipe_of(config, fit, SEED | SURROUNDINGS)
        if same := [one.config for one in planned if one.settings == settings]:
            raise UserError(f"{path} trains the same as {same[0]}.")
        planned.append(Trainings(path, short_name(config.model.class_path), settings, runs_folder(config), given.seeds))
    compare(
        [Path(folder) for folder in given.folders],
        planned,
        given.margin,
        Path(given.output),
        given.name,
        Path(given.data_dir) if given.data_dir else None,
        [*PROGRAM.split(), *args],
    )


def _add_export_arguments(parser: LightningArgumentParser) -> None:
    parser.add_argument("--ckpt_path", type=str, help="The checkpoint.")
    parser.add_argument("--output", type=str, metavar="FOLDER", help="Where to write; by default the run folder.")
    parser.add_argument("--data_dir", type=str, help="Folder of the data; by default that of the training.")
    parser.add_argument("--model", type=str, metavar="MODULE.CLASS", help="The network, if it is one of your own.")


def _export(given: Namespace, fit: LightningArgumentParser, args: list[str]) -> None:
    from src.inference.export import export

    if given.ckpt_path is None:
        raise UserError(NAME_A_CHECKPOINT)
    named = import_network(given.model) if given.model is not None else None
    checkpoint = Path(given.ckpt_path)
    trained = TrainedNetwork(checkpoint)
    if named not in (None, type(trained.network)):
        raise UserError(f"{checkpoint} holds {type(trained.network).__name__}, not {given.model}.")
    if given.data_dir is not None:
        trained.datamodule.data_dir = Path(given.data_dir)
    export(trained, Path(given.output) if given.output else run_folder(checkpoint))


WITHOUT_TRAINER = {
    "export": Command(_add_export_arguments, _export),
    "compare": Command(_add_compare_arguments, _compare),
}
