"""The command line: LightningCLI with this project's data, run folder and plain errors."""

import copy
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar, Timer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from src.cli.commands import WITHOUT_TRAINER
from src.cli.messages import NAME_A_CHECKPOINT, PROGRAM, Parser, silence_noise
from src.cli.settings import recipe_of, refuse_contradictions, runs_folder, saved_settings
from src.data import MNISTDataModule
from src.inference.predictions import predict
from src.models import Classifier, EpochMetrics
from src.runs.checkpoints import PREVIOUS, CheckedCheckpointIO, load_checkpoint
from src.runs.folder import Run, find_runs
from src.runs.recipe import SURROUNDINGS, differences, has_recipe, recipe
from src.system.errors import UserError
from src.system.memory import keep_freed_pages
from src.tensorboard.board import TensorBoard
from src.tensorboard.logger import RunLogger
from src.training.callbacks import Curves, Progress, RunSummary, describe_result
from src.training.randomness import RandomState
from src.training.stopping import Interrupted, Stopping

COMMANDS = {
    "fit": "Train a network, then test its last weights.",
    "validate": "Measure a checkpoint on the validation images of its run.",
    "test": "Measure a checkpoint on the test images.",
    "predict": "Write what checkpoints answer for pictures of your own, or else for the test images.",
    "export": "Write a checkpoint as ONNX and as a program of torch.export, checked on the test images.",
    "compare": "Compare networks by all their runs: a report with a verdict and error bars.",
}

NAME_A_NETWORK = "Name a network: --config configs/lenet5.yaml, or --model LeNet5"
CHOSEN_RUN = "RESUMED_RUN"  # environment variable: what --resume auto chose, for the processes of the other devices


class CLI(LightningCLI):
    """``fit``, ``validate``, ``test``, ``predict`` and the commands of `src.cli.commands`, for any `Classifier`.

    A run of ``fit`` gets a folder of its own, ends with the test of its last weights and writes
    results.json. ``compare`` reads such runs. The others take network and data settings from the checkpoint.
    """

    run: Run | None = None  # the one that `fit --resume` goes on with

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        hidden = {"weights_only", "verbose", "return_predictions"}  # decided here
        return {name: skip | hidden for name, skip in LightningCLI.subcommands().items() if name in COMMANDS}

    # --- Settings ------------------------------------------------------------------------------------------

    def setup_parser(self, *args: Any) -> None:
        super().setup_parser(*args)
        # Lightning takes the first lines of its docstrings, cut in the middle of a sentence.
        for name, text in COMMANDS.items():
            self._parser(name).description = text
        subparsers: Any = self.parser._subparsers
        for command in subparsers._group_actions[0]._choices_actions:
            command.help = COMMANDS[command.dest]

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        subparsers: Any = parser._subparsers
        for name, command in WITHOUT_TRAINER.items():
            self._subcommand_parsers[name] = Parser()
            command.add_arguments(self._subcommand_parsers[name])
            subparsers._group_actions[0].add_subcommand(name, self._subcommand_parsers[name], help=COMMANDS[name])

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--seed_everything",
            type=int,
            default=0,
            help="Seed of the weights, of dropout and of the order of the images.",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({"trainer.max_epochs": 12, "trainer.num_sanity_val_steps": 0})
        # Not required: a checkpoint names its network. `parse_arguments` reports a missing one.
        parser.add_lightning_class_args(Classifier, "model", subclass_mode=True, required=False)
        parser.add_class_arguments(MNISTDataModule, "data", skip={"images"})  # for `predict` alone
        parser.link_arguments("seed_everything", "data.seed")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            parser.add_lightning_class_args(TensorBoard, "tensorboard")
            parser.add_argument(
                "--resume",
                type=str,
                metavar="RUN|auto",
                help="Go on with a run that was cut, in its folder; auto: the newest of this config, else a new run.",
            )
            parser.add_argument(
                "--save_every_n_steps", type=NonNegativeInt, default=0, help="Save inside an epoch; 0 doesn't."
            )
            parser.add_argument(
                "--save_every_n_minutes",
                type=NonNegativeFloat,
                default=0.0,
                help="Save inside an epoch; 0 doesn't.",
            )
        if subcommand == "predict":
            parser.add_argument(
                "--data.images", nargs="+", type=str, metavar="PATH", help="Pictures: files, folders or globs."
            )
            parser.add_argument(
                "--also", nargs="+", type=str, default=[], metavar="CKPT", help="More checkpoints, a column for each."
            )
            parser.add_argument(
                "--contact_sheet", type=str, metavar="FILE", help="Draw what the network saw in the pictures and said."
            )
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        super().parse_arguments(parser, args)
        given = self.config[self.config.subcommand]
        if command := WITHOUT_TRAINER.get(self.config.subcommand):
            command.run(given, self._parser("fit"), sys.argv[1:] if args is None else list(args))
            raise SystemExit(0)
        if not 0 <= given.seed_everything < 2**32:
            raise UserError(f"--seed_everything is {given.seed_everything}; it must be 0 … {2**32 - 1}.")
        if self.config.subcommand == "fit" and given.resume and (run := self._run_to_resume(given)):
            self.run = run
            args = self._arguments_of(run, given.resume, sys.argv[1:] if args is None else list(args))
            super().parse_arguments(parser, args)
            given = self.config.fit
            settings = recipe_of(given, self._parser("fit"), SURROUNDINGS)
            if changed := differences(settings, recipe(run.config, SURROUNDINGS)):
                raise UserError(f"{run.folder} was started with other settings: {', '.join(changed)}.")
        if given.ckpt_path is not None:
            # The settings of the checkpoint become the defaults, so that what is given can be compared.
            saved = saved_settings(given.ckpt_path, given.model)
            try:
                self._parser(self.config.subcommand).set_defaults(saved)
            except KeyError as error:
                raise UserError(f"{given.ckpt_path} is from another version of this package: {error}") from None
            super().parse_arguments(parser, args)
            refuse_contradictions(self.config[self.config.subcommand], saved)
        elif self.config.subcommand != "fit":
            raise UserError(NAME_A_CHECKPOINT)
        elif given.model is None:
            raise UserError(NAME_A_NETWORK)

    def _run_to_resume(self, given: Namespace) -> Run | None:
        """The run named with ``--resume``; with "auto" the newest of these settings that was cut, if there is one."""
        if given.ckpt_path is not None:
            raise UserError("--resume goes on with a run, --ckpt_path begins a new one: give one of them.")
        if given.resume != "auto":
            named = Path(given.resume)
            run = Run(named.parent.parent if named.is_file() else named)
            if not (run.folder / "config.yaml").is_file():
                raise UserError(f"{given.resume} is not a run: there is no {run.folder / 'config.yaml'}.")
            return run
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            if given.model is None:
                raise UserError(NAME_A_NETWORK)
            settings = recipe_of(given, self._parser("fit"), SURROUNDINGS)
            cut = [
                run
                for run in find_runs(runs_folder(given))
                if not run.is_finished and has_recipe(run, settings, SURROUNDINGS) and not run.is_busy
            ]
            os.environ[CHOSEN_RUN] = str(cut[-1].folder) if cut else ""
        chosen = os.environ.get(CHOSEN_RUN)
        return Run(Path(chosen)) if chosen else None

    def _arguments_of(self, run: Run, resume: str, args: list[str]) -> list[str]:
        """The command line with the settings of `run` before all others, and the checkpoint to go on from."""
        if run.is_finished:
            test = run.results["test"]
            print(f"{run.folder} is finished: {describe_result(run.results['model'], 'test', test)}.")
            raise SystemExit(0)
        if run.config["trainer"]["max_steps"] not in (None, -1):
            raise UserError("A training with --trainer.max_steps can't be resumed exactly, one with max_epochs can.")
        checkpoint = Path(resume) if Path(resume).is_file() else run.checkpoint
        previous = run.checkpoint.with_name(PREVIOUS)
        if resume == "auto" and checkpoint.is_file():
            try:
                load_checkpoint(checkpoint)
            except UserError as error:
                load_checkpoint(previous)
                print(f"{error}\nGoing on from the one before: {previous}", file=sys.stderr)
                checkpoint = previous
        command = args.index("fit") + 1
        args = [*args[:command], "--config", str(run.folder / "config.yaml"), *args[command:]]
        # Cut before its first checkpoint, it starts from the beginning, in its folder.
        return [*args, "--ckpt_path", str(checkpoint)] if checkpoint.is_file() else args

    def _parse_ckpt_path(self) -> None:
        """Replaced by `parse_arguments`: Lightning lets the checkpoint overrule the command line, and import."""

    def before_instantiate_classes(self) -> None:
        if self.subcommand != "fit":
            self.save_config_callback = None  # only a training has a run folder
        elif self.run:
            self.save_config_callback = None  # it lies in its folder
        elif (max_epochs := self._get(self.config, "trainer").max_epochs) is not None and max_epochs < 1:
            raise UserError(f"--trainer.max_epochs is {max_epochs}; it must be at least 1.")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what every run has here, unless the config brings its own: logger, checkpoints, progress bar."""
        config = self._get(self.config_init, "trainer")
        given = _as_list(config.callbacks)
        callbacks: list[Callback] = []
        if config.enable_progress_bar is not False and not _has(given, ProgressBar):
            callbacks.append(Progress())
        if self.subcommand == "fit":
            timer = Timer()
            stopping = Stopping(self.config.fit.save_every_n_steps, self.config.fit.save_every_n_minutes)
            callbacks += [timer, RandomState(), Curves(), RunSummary(timer), stopping]
            if config.enable_checkpointing is not False and not _has(given, Checkpoint):
                callbacks += self._checkpoints()
            if config.logger in (None, True):
                version = self.run.folder if self.run else None
                folder = version.parent if version else runs_folder(self.config.fit)
                kwargs["logger"] = RunLogger(str(folder.parent), folder.name, version.name if version else None)
        else:
            kwargs["logger"] = False
            kwargs["enable_checkpointing"] = _has(given, Checkpoint)
        kwargs["plugins"] = [*_as_list(config.plugins), CheckedCheckpointIO()]
        self.trainer_defaults["callbacks"] = callbacks
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise UserError(f"The trainer's settings don't work: {error}") from None

    def _checkpoints(self) -> list[Callback]:
        """``checkpoints/last.ckpt`` after each epoch; with images held out, also ``best.ckpt``."""
        last = ModelCheckpoint(filename="last", enable_version_counter=False)
        if not self.datamodule.val_size:
            return [last]
        best = ModelCheckpoint(filename="best", enable_version_counter=False, monitor="val_accuracy", mode="max")
        return [best, last]  # in this order, so that the state of `best` is in last.ckpt

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            # jsonargparse wraps what a network's __init__ raises.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UserError):
                cause = cause.__cause__ or cause.__context__
            raise cause or error from None

    # --- Commands ------------------------------------------------------------------------------------------

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except BaseException:
            # The processes of the other devices would wait for this one.
            for process in getattr(self.trainer.strategy.launcher, "procs", []):
                process.kill()
            raise

    def fit(self, **kwargs: Any) -> None:
        self._refuse_other_number_of_classes()
        if self.run and self.trainer.is_global_zero:
            print(f"Going on with {self.run.folder}")
        with self._own_folder():
            self.trainer.fit(**kwargs)
            self.trainer.test(self.model, self.datamodule, verbose=False)  # RunSummary tells and keeps the result

    def _refuse_other_number_of_classes(self) -> None:
        network, classes = copy.deepcopy(self.model).eval(), len(self.datamodule.classes)
        with torch.inference_mode():
            outputs = network(torch.zeros(1, 1, 28, 28, dtype=network.dtype)).shape[-1]
        if outputs != classes:
            raise UserError(f"{type(network).__name__} tells {outputs} classes apart, but the data set has {classes}.")

    def _own_folder(self) -> AbstractContextManager[None]:
        logger = self.trainer.logger
        if not isinstance(logger, RunLogger) or not self.trainer.is_global_zero:
            return nullcontext()
        folder = Path(logger.log_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return Run(folder).locked()

    def validate(self, **kwargs: Any) -> None:
        self.trainer.validate(verbose=False, **kwargs)
        self._print_result("validation", self.model.val_metrics)

    def test(self, **kwargs: Any) -> None:
        self.trainer.test(verbose=False, **kwargs)
        self._print_result("test", self.model.test_metrics)

    def predict(self, **kwargs: Any) -> None:
        predict(self.trainer, **kwargs, also=self.config.predict.also, contact_sheet=self.config.predict.contact_sheet)

    def _print_result(self, images: str, metrics: EpochMetrics) -> None:
        result = metrics.compute()  # on every rank: it may reduce
        if self.trainer.is_global_zero:
            print(describe_result(type(self.model).__name__, images, result))


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _has(callbacks: list[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


def main(args: ArgsType = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 1 for an error, 128 + the number of a signal. Ends with 2 where the command line is wrong.
    """
    silence_noise()
    keep_freed_pages()
    try:
        CLI(
            Classifier,
            MNISTDataModule,
            subclass_mode_model=True,
            parser_kwargs={"prog": PROGRAM, "description": "Train and compare small networks on MNIST."},
            parser_class=Parser,
            auto_configure_optimizers=False,
            args=args,
        )
    except Interrupted as interrupted:
        if rank_zero_only.rank:  # type: ignore[attr-defined]
            return 0  # Lightning kills the first process where another ends with an error
        print(f"\n{interrupted}", file=sys.stderr)
        return interrupted.exit_code
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except (UserError, MisconfigurationException, OSError) as error:
        rank = rank_zero_only.rank  # type: ignore[attr-defined]
        print(f"{f'[rank: {rank}] ' if rank else ''}error: {error}", file=sys.stderr)
        return 1
    return 0
