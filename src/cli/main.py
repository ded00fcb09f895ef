"""The command line: LightningCLI with this project's commands, run folders and error messages.

Private names used here: ``LightningCLI._parse_ckpt_path`` is replaced, because it lets a checkpoint override the
command line and import modules.
"""

import sys
import traceback
from argparse import SUPPRESS
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt
from lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, LRSchedulerTypeTuple
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from src.cli.commands import COMMANDS, TRAINING, add_options, run_command
from src.cli.messages import (
    NAME_A_CHECKPOINT,
    NAME_A_NETWORK,
    Parser,
    named_class,
    prepare_output,
    print_error,
    with_full_names,
)
from src.cli.overview import DESCRIPTION, HELP, PROGRAM
from src.cli.settings import (
    add_trainer_options,
    expand_paths,
    named_in,
    named_run,
    newest_checkpoint,
    newest_unfinished_run,
    refuse_contradictions,
    refuse_other_settings,
    saved_settings,
    with_config_of,
)
from src.data import ImageDataModule
from src.inference.predictions import predict
from src.runs.checkpoints import MNIST, Checkpoint
from src.runs.folder import Run
from src.runs.network import follow_data_set, import_class, load_weights
from src.runs.trust import parser_defaults
from src.system.errors import UserError, user_error_in
from src.system.machine import speed_up_cpu
from src.system.signals import Interrupted, signals_raise_interrupted
from src.tensorboard.board import TensorBoard
from src.training.callbacks import describe_result
from src.training.measuring import measuring_of
from src.training.trainer import evaluation_trainer, train, training_trainer


class CLI(LightningCLI):
    """Reads the command line and the configs, builds network, data and Trainer, and runs the command.

    ``fit`` writes a run folder and tests its last weights. ``validate``, ``test`` and ``predict`` take the settings of
    network and data from the checkpoint. `src.cli.commands` has the other commands.
    """

    parser: Parser
    run: Run | None = None  # to resume
    checkpoint: Checkpoint | None = None

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        # `add_core_arguments_to_parser` adds ckpt_path, and the methods below decide the others.
        hidden = {"ckpt_path", "weights_only", "verbose", "return_predictions"}
        return {name: skipped | hidden for name, skipped in LightningCLI.subcommands().items()}

    def setup_parser(self, *args: Any) -> None:
        super().setup_parser(*args)
        for name, command in COMMANDS.items():
            parser: Any = self.init_parser() if name in TRAINING else Parser()
            if name in TRAINING:
                self.add_default_arguments_to_parser(parser)
                self.add_core_arguments_to_parser(parser)
                add_training_options(parser)
                parser.set_defaults({f"tensorboard.{part}": False for part in vars(TensorBoard())})  # but the curves
            add_options(parser, command)
            self.parser.add_command(name, parser)
        add_training_options(self.parser.commands["fit"])
        for name in ("validate", "test", "predict"):
            for option in ("tensorboard", "resume", "save_every_n_steps", "save_every_n_minutes"):
                # So that they accept the config.yaml of a run.
                self.parser.commands[name].add_argument(f"--{option}", type=Any, help=SUPPRESS)
        add_predict_options(self.parser.commands["predict"])

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--ckpt_path", type=str, help="A checkpoint. With fit, a new run starts from it.")
        add_trainer_options(parser)
        # Not required, because a checkpoint names its network. `parse_arguments` reports a missing network.
        parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True, required=False)
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
        parser.set_defaults({"data": {"class_path": MNIST}})
        parser.add_optimizer_args((Optimizer,))
        parser.add_lr_scheduler_args(LRSchedulerTypeTuple)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the command line once, on top of the settings of the run or the checkpoint that it names."""
        command_args = sys.argv[1:] if args is None else list(args)
        for number, arg in enumerate(command_args):
            is_name = arg in ("LeNet5", "CNN") and number and command_args[number - 1] == "--model"
            command_args[number] = f"src.models.{arg}" if is_name else with_full_names(arg)
            if arg == "--data.help" and (number + 1 == len(command_args) or command_args[number + 1].startswith("-")):
                command_args[number] = f"--data.help={MNIST}"
        command = next((arg for arg in command_args if arg in HELP), None)
        named, saved = named_in(command_args), None
        if command == "fit" and named.resume and named.resume != "auto":
            self.run = named_run(named.resume)
            command_args = command_args if named.config else with_config_of(self.run, command_args)
        elif command in self.subcommands() and named.ckpt_path:
            model, data = (named_class(section, command_args) for section in ("model", "data"))
            model, data = model and import_class(model), data and import_class(data, LightningDataModule)
            self.checkpoint = Checkpoint.read(named.ckpt_path)
            saved = saved_settings(self.checkpoint, model, data, config=bool(named.config))
            try:
                self.parser.commands[command].set_defaults(parser_defaults(saved))
            except KeyError as error:
                raise UserError(f"{named.ckpt_path} is from another version of this package: {error}") from None
        with Parser.reading(named.ckpt_path if saved else ""):
            self.config = parser.parse_args(command_args)
        command = self.config.subcommand
        settings = self.config[command]
        expand_paths(settings)
        if named.ckpt_path:
            settings.ckpt_path = named.ckpt_path  # best and last as files
        if command in COMMANDS:
            run_command(command, settings, self.parser.commands["fit"], command_args)
            raise SystemExit(0)
        self._complete(settings, self.parser.commands[command], saved)

    def _complete(self, settings: Any, parser: LightningArgumentParser, saved: dict[str, Any] | None) -> None:
        """Choose the run to resume, read the checkpoint, and compare the settings with those of both."""
        if isinstance(settings.seed_everything, bool):  # for Lightning, any seed
            settings.seed_everything = seed_everything(workers=True, verbose=False)
        if not 0 <= settings.seed_everything < 2**32:
            raise UserError(f"--seed_everything is {settings.seed_everything}; it must be 0 … {2**32 - 1}.")
        is_fit = self.config.subcommand == "fit"
        if is_fit and settings.resume:
            if self.run is None:  # the path may be from a config
                is_auto = settings.resume == "auto"
                self.run = newest_unfinished_run(settings, parser) if is_auto else named_run(settings.resume)
            if self.run is not None:
                refuse_other_settings(self.run, settings, parser)
                self.checkpoint = newest_checkpoint(self.run, Path(settings.resume))
                settings.ckpt_path = str(self.checkpoint.path) if self.checkpoint else None
        elif settings.ckpt_path is None and not is_fit:
            raise UserError(NAME_A_CHECKPOINT)
        elif settings.ckpt_path is not None:
            if self.checkpoint is None or saved is None:  # the path is from a config
                self.checkpoint = Checkpoint.read(settings.ckpt_path)
                model, data = settings.model and settings.model.class_path, settings.data.class_path
                saved = saved_settings(self.checkpoint, model, data, config=True)
            if settings.model is None:
                raise UserError(f"{NAME_A_NETWORK}, or give --ckpt_path on the command line.")
            refuse_contradictions(settings, parser, saved)
        if settings.model is None:
            raise UserError(NAME_A_NETWORK)
        follow_data_set(settings)

    def _parse_ckpt_path(self) -> None:
        """Do nothing. `parse_arguments` reads the checkpoint."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        command = str(self.subcommand)
        config, built = self.config[command], self.config_init[command]
        if self.checkpoint is not None:
            load_weights(self.model, self.checkpoint)  # refuses those that do not fit
        if command != "fit":
            return evaluation_trainer(command, config, built, self.checkpoint)
        save_best = isinstance(self.datamodule, ImageDataModule) and self.datamodule.val_size > 0
        return training_trainer(self.parser.commands["fit"], config, built, save_best, self.run, self.checkpoint)

    def fit(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        if self.run and self.trainer.is_global_zero:
            print(f"Resuming {self.run.folder}")
        train(self.trainer, model, datamodule, self.checkpoint)

    def validate(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=self.config.validate.ckpt_path, verbose=False)
        self._print_result("validation", "val")

    def test(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        self.trainer.test(model, datamodule=datamodule, ckpt_path=self.config.test.ckpt_path, verbose=False)
        self._print_result("test", "test")

    def predict(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        settings = self.config.predict
        named = settings.ckpt_path, settings.also, settings.images, settings.contact_sheet
        predict(self.trainer, model, datamodule, *named, measuring_of(self.trainer))

    def _print_result(self, images: str, stage: str) -> None:
        result = measuring_of(self.trainer).result(stage)
        if self.trainer.is_global_zero:
            print(describe_result(type(self.model).__name__, images, result))


def add_training_options(parser: LightningArgumentParser) -> None:
    """Add the options of a training beside those of Trainer, network and data."""
    parser.add_lightning_class_args(TensorBoard, "tensorboard")
    text = "Resume an interrupted run in its folder. auto: the newest one with these settings, or else a new run."
    parser.add_argument("--resume", type=str, metavar="RUN|auto", help=text)
    text = "{} between saves inside an epoch, 0 for none."
    parser.add_argument("--save_every_n_steps", type=NonNegativeInt, default=0, help=text.format("Steps"))
    parser.add_argument("--save_every_n_minutes", type=NonNegativeFloat, default=0.0, help=text.format("Minutes"))


def add_predict_options(parser: LightningArgumentParser) -> None:
    """Add what ``predict`` takes beside the settings of the checkpoint."""
    text = "Pictures to predict: files, folders or globs."
    parser.add_argument("--images", "--data.images", nargs="+", type=str, metavar="PATH", help=text)
    text = "More checkpoints. Each gets its own columns."
    parser.add_argument("--also", nargs="+", type=str, default=[], metavar="CKPT", help=text)
    text = "A .png, .jpg or .pdf file to draw: the pictures as the networks see them, with the predictions."
    parser.add_argument("--contact_sheet", type=str, metavar="FILE", help=text)


def main(args: ArgsType = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 1 for an error, 128 + the number of a signal. Exits with 2 if the command line is not valid.
    """
    prepare_output()
    speed_up_cpu()
    parser = {"prog": PROGRAM, "description": DESCRIPTION, "command_help": HELP}
    try:
        with signals_raise_interrupted():
            CLI(
                LightningModule,
                LightningDataModule,
                save_config_callback=None,  # `training_trainer` adds it to trainings
                seed_everything_default=0,
                subclass_mode_model=True,
                subclass_mode_data=True,
                parser_kwargs=parser,
                parser_class=Parser,
                auto_configure_optimizers=False,  # `training_trainer` does it, for trials of a search too
                args=args,
            )
    except (Interrupted, MisconfigurationException, OSError) as error:
        traceback.clear_frames(error.__traceback__)  # it keeps progress bars, which would be drawn after the last line
        return print_error(error)
    except Exception as error:
        if (user_error := user_error_in(error)) is None:
            raise
        traceback.clear_frames(error.__traceback__)
        return print_error(user_error)
    return 0
