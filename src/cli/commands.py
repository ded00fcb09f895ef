"""The commands of the command line. To add one, write its options and what it does, and add it to `COMMANDS`."""

from argparse import SUPPRESS
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from src.cli.messages import NAME_A_CHECKPOINT, NAME_A_NETWORK, PROGRAM
from src.runs.folder import run_folder, runs_folder, short_name
from src.runs.network import TrainedNetwork, import_network
from src.runs.recipe import Role, recipe_of, settings_with
from src.system.errors import UserError
from src.tensorboard.board import TensorBoard
from src.training.stopping import Interrupted


class Command(NamedTuple):
    """A command of the command line."""

    help: str
    add_options: Callable[[LightningArgumentParser], None] = lambda parser: None
    # What the command does, given its settings, the parser of `fit`, and the arguments of the command line.
    # None: it is a method of the CLI and needs a Trainer; Lightning adds the options of trainer, model and data.
    run: Callable[[Namespace, LightningArgumentParser, list[str]], None] | None = None
    trains: bool = False  # whether such a command takes the settings of network, data and Trainer, as `fit` does


def _add_fit_options(parser: LightningArgumentParser, help_of_resume: str | None = None) -> None:
    parser.add_lightning_class_args(TensorBoard, "tensorboard")
    text = "Resume an interrupted run in its folder. auto: the newest one with this config, or else a new run."
    parser.add_argument("--resume", type=str, metavar="RUN|auto", help=help_of_resume or text)
    text = "{} between saves inside an epoch, 0 for none."
    parser.add_argument("--save_every_n_steps", type=NonNegativeInt, default=0, help=text.format("Steps"))
    parser.add_argument("--save_every_n_minutes", type=NonNegativeFloat, default=0.0, help=text.format("Minutes"))


def _add_predict_options(parser: LightningArgumentParser) -> None:
    text = "Pictures to predict: files, folders or globs."
    parser.add_argument("--data.images", nargs="+", type=str, metavar="PATH", help=text)
    text = "More checkpoints. Each gets its own columns."
    parser.add_argument("--also", nargs="+", type=str, default=[], metavar="CKPT", help=text)
    text = "A .png, .jpg or .pdf file to draw: the pictures as the networks see them, with the predictions."
    parser.add_argument("--contact_sheet", type=str, metavar="FILE", help=text)


def _add_export_options(parser: LightningArgumentParser) -> None:
    parser.add_argument("--ckpt_path", type=str, help="The checkpoint.")
    parser.add_argument("--output", type=str, metavar="FOLDER", help="Folder to write to. Default: the run folder.")
    parser.add_argument("--data_dir", type=str, help="Folder of the data. Default: that of the training.")
    parser.add_argument("--model", type=str, metavar="MODULE.CLASS", help="Class of your own network, if it is one.")


def _export(given: Namespace, fit: LightningArgumentParser, words: list[str]) -> None:
    from src.inference.export import export

    if given.ckpt_path is None:
        raise UserError(NAME_A_CHECKPOINT)
    checkpoint = Path(given.ckpt_path)
    trained = TrainedNetwork(checkpoint, import_network(given.model) if given.model is not None else None)
    if given.data_dir is not None:
        trained.datamodule.data_dir = Path(given.data_dir)
    export(trained, Path(given.output) if given.output else run_folder(checkpoint))


def _add_demo_options(parser: LightningArgumentParser) -> None:
    text = "A checkpoint. Default: the newest finished run of each network in lightning_logs."
    parser.add_argument("--ckpt_path", type=str, help=text)
    parser.add_argument("--also", nargs="+", type=str, default=[], metavar="CKPT", help="More checkpoints.")
    parser.add_argument("--port", type=PositiveInt, help="Port of the page. Default: the first free one from 7860 on.")
    text = "Folder for pictures that were read wrong."
    parser.add_argument("--drawings", type=str, default="drawings", metavar="FOLDER", help=text)
    text = "Your own network classes (module.Class) that appear in the checkpoints."
    parser.add_argument("--model", nargs="+", metavar="MODULE.CLASS", help=text)


def _demo(given: Namespace, fit: LightningArgumentParser, words: list[str]) -> None:
    try:
        from src.inference.demo import newest_checkpoints, show
    except ModuleNotFoundError as error:
        raise UserError(f'{error.name} is not installed. The demo needs: pip install -e ".[demo]"') from None
    for class_path in given.model or []:
        import_network(class_path)
    if given.ckpt_path is None and given.also:
        raise UserError(NAME_A_CHECKPOINT)
    checkpoints = [Path(path) for path in (given.ckpt_path, *given.also)] if given.ckpt_path else newest_checkpoints()
    try:
        show(checkpoints, given.port, Path(given.drawings))
    except Interrupted:
        print("The demo has ended.")


def _add_compare_options(parser: LightningArgumentParser) -> None:
    text = "Folders with finished runs, at any depth."
    parser.add_argument("folders", nargs="*", default=[], metavar="FOLDER", help=text)
    text = "Train the missing runs of these configs first."
    parser.add_argument("--train", nargs="+", metavar="CONFIG", help=text)
    parser.add_argument("--seeds", type=PositiveInt, default=5, help="Number of runs of each config for --train.")
    parser.add_argument("--jobs", type=PositiveInt, default=1, help="Number of runs to train at a time.")
    text = "The largest difference that does not matter, in test images."
    parser.add_argument("--margin", type=NonNegativeFloat, default=10.0, help=text)
    parser.add_argument("--name", type=str, help="Name of the comparison. Default: the names of the networks.")
    parser.add_argument("--output", type=str, default="comparison", help="Folder of all comparisons.")
    parser.add_argument("--data_dir", type=str, help="Folder of the data. Default: that of the first run.")
    text = "Your own network classes (module.Class) that appear in the runs."
    parser.add_argument("--model", nargs="+", metavar="MODULE.CLASS", help=text)


def _compare(given: Namespace, fit: LightningArgumentParser, words: list[str]) -> None:
    # These import scipy and jinja2, which take half a second.
    from src.comparison.compare import compare
    from src.comparison.trainings import Trainings
    from src.report.report import collect_numbers, summarise, write_report

    if not given.folders and not given.train:
        raise UserError("Name folders of runs, or configs: compare lightning_logs/lenet5 lightning_logs/cnn")
    _folder_name(given.name)
    for class_path in given.model or []:
        import_network(class_path)
    planned: list[Trainings] = []
    for path in given.train or []:
        config = fit.parse_args(["--config", path])
        if config.model is None:
            raise UserError(f"{path} names no network.")
        settings = recipe_of(config, fit)
        if same := [one.config for one in planned if one.settings == settings]:
            raise UserError(f"{path} trains the same as {same[0]}.")
        planned.append(Trainings(path, short_name(config.model.class_path), settings, runs_folder(config), given.seeds))
    comparison = compare(
        [Path(folder) for folder in given.folders],
        planned,
        given.margin,
        Path(given.output),
        given.name,
        Path(given.data_dir) if given.data_dir else None,
        [*PROGRAM.split(), *words],
        given.jobs,
    )
    report = collect_numbers(comparison)
    page = write_report(report, comparison)
    print(f"\n{summarise(report)}\n\nReport: {page}")


def _add_tune_options(parser: LightningArgumentParser) -> None:
    _add_fit_options(parser, help_of_resume=SUPPRESS)  # tune refuses it, but the settings of a trial have it
    parser.set_defaults({f"tensorboard.{part}": False for part in vars(TensorBoard())})  # the curves of a trial will do
    text = "YAML file of the settings to search and their ranges, such as model.lr: {log: [1e-4, 1e-1]}"
    parser.add_argument("--search", type=str, metavar="FILE", help=text)
    text = "Number of finished trials in all, over all processes and restarts."
    parser.add_argument("--trials", type=PositiveInt, default=50, help=text)
    text = "Number of runs of each trial, with different seeds. Its result is their mean."
    parser.add_argument("--seeds", type=PositiveInt, default=1, help=text)
    text = "End a trial that has more errors after an epoch than the median of the others."
    parser.add_argument("--prune", type=bool, default=True, help=text)
    text = "Number of runs of each of the best two trials with fresh seeds, at the end."
    parser.add_argument("--fresh", type=NonNegativeInt, default=5, help=text)
    text = "Configs of other recipes to compare the best trial with, in runs with the same fresh seeds."
    parser.add_argument("--against", nargs="+", type=str, default=[], metavar="CONFIG", help=text)
    text = "The largest difference that does not matter, in held-out images."
    parser.add_argument("--margin", type=NonNegativeFloat, default=10.0, help=text)
    parser.add_argument("--jobs", type=PositiveInt, default=1, help="Number of trials to train at a time.")
    parser.add_argument("--name", type=str, help="Name of the search. Default: that of the network.")
    parser.add_argument("--output", type=str, default="tuning", help="Folder of all searches.")
    text = "A journal file or the URL of a database. Default: an SQLite file in the folder of the search."
    parser.add_argument("--storage", type=str, metavar="FILE|URL", help=text)
    parser.add_argument("--worker", type=bool, default=False, help=SUPPRESS)  # is one of the processes of --jobs


def _tune(given: Namespace, fit: LightningArgumentParser, words: list[str]) -> None:
    try:
        from src.tuning.confirmation import Candidate
        from src.tuning.ranges import read_ranges
        from src.tuning.search import Search
        from src.tuning.tune import tune
    except ModuleNotFoundError as error:
        raise UserError(f'{error.name} is not installed. tune needs: pip install -e ".[tune]"') from None
    if given.search is None:
        raise UserError("Name the settings to search: --search configs/search.yaml")
    of_fit = fit.get_defaults()
    base = Namespace(**{name: value for name, value in vars(given).items() if name in of_fit})
    if base.model is None:
        raise UserError(NAME_A_NETWORK)
    search = Search(
        fit,
        base,
        [str(path) for path in given.config or []],
        read_ranges(Path(given.search)),
        given.trials,
        given.seeds,
        given.prune,
        Path(given.output, _folder_name(given.name) or short_name(base.model.class_path).lower()),
        given.storage,
    )
    against = [Candidate(Path(path).stem, fit.parse_args([f"--config={path}"])) for path in given.against]
    if len({candidate.name for candidate in against}) < len(against):
        raise UserError("--against names two files of the same name. Their runs need names: rename one.")
    for candidate in against:
        if candidate.config.model is None:
            raise UserError(f"{candidate.name} names no network.")
        for name in settings_with(Role.SEARCH):
            candidate.config[name] = base[name]
    again = None if given.worker else [*words, "--jobs", "1", "--worker", "true"]
    tune(search, Path(given.search), against, given.fresh, given.margin, given.jobs, again)


def _folder_name(name: str | None) -> str | None:
    if name is not None and (name in ("", "..") or Path(name).name != name):
        raise UserError(f"--name {name!r} is not the name of a folder.")
    return name


COMMANDS = {
    "fit": Command("Train a network, then test its last weights.", _add_fit_options),
    "validate": Command("Evaluate a checkpoint on the validation images of its run."),
    "test": Command("Evaluate a checkpoint on the test images."),
    "predict": Command(
        "Predict your own pictures, or the test images, with one or more checkpoints.", _add_predict_options
    ),
    "export": Command(
        "Export a checkpoint to ONNX and torch.export, and check both on the test images.", _add_export_options, _export
    ),
    "demo": Command("Show a page on which you draw digits for one or more networks.", _add_demo_options, _demo),
    "compare": Command(
        "Compare networks by all their runs: a report with a verdict and error bars.", _add_compare_options, _compare
    ),
    "tune": Command(
        "Search for settings that make few errors in held-out training images.", _add_tune_options, _tune, trains=True
    ),
}
