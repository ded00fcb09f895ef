"""The command line: LightningCLI with this project's commands, run folders and error messages.

Private names used here: ``LightningCLI._parse_ckpt_path`` is replaced, because it lets a checkpoint override the
command line and import modules.
"""

import atexit
import signal
import sys
import traceback
from contextlib import nullcontext
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from src.cli.commands import COMMANDS
from src.cli.messages import PROGRAM, Parser, plain_error, prepare_output, print_error
from src.cli.resume import complete_settings
from src.cli.settings import add_trainer_options, configs_first
from src.data import MNISTDataModule
from src.inference.predictions import predict
from src.models import Classifier, EpochMetrics
from src.runs.checkpoints import SavedNetwork
from src.runs.folder import Run, runs_folder
from src.runs.network import load_weights
from src.system.errors import UserError
from src.system.machine import speed_up_cpu
from src.system.processes import StartingTogether
from src.training.callbacks import Progress, describe_result
from src.training.stopping import Interrupted, interrupted_by_signals
from src.training.trainer import as_list, run_logger, train, training_callbacks, with_own_plugins
from src.training.unsupported import refuse_no_batches, refuse_unsupported, refuse_unsupported_strategy


class CLI(LightningCLI):
    """Reads the command line and the configs, builds network, data and Trainer, and runs the command.

    ``fit`` writes a run folder and tests its last weights. The other commands take the settings of network and data
    from the checkpoint. `src.cli.commands` lists all commands.
    """

    parser: Parser
    resumed_run: Run | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except Exception as error:
            if hasattr(self, "config") and (plain := plain_error(error, self.config)):
                raise plain from None
            raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        # `add_default_arguments_to_parser` adds ckpt_path, and the methods below decide the others.
        hidden = {"ckpt_path", "weights_only", "verbose", "return_predictions"}
        skipped = LightningCLI.subcommands()
        return {name: skipped[name] | hidden for name, command in COMMANDS.items() if command.run is None}

    def setup_parser(self, *args: Any) -> None:
        super().setup_parser(*args)
        for name, command in COMMANDS.items():
            if command.run is not None:
                parser: Any = self.init_parser() if command.trains else Parser()
                if command.trains:
                    self.add_default_arguments_to_parser(parser)
                    self.add_core_arguments_to_parser(parser)
                self.parser.add_command(name, parser)
            command.add_options(self.parser.commands[name])

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        text = "Seed of initial weights, dropout and order of the images."
        parser.add_argument("--seed_everything", type=int, default=0, help=text)
        parser.add_argument("--ckpt_path", type=str, help="A checkpoint. With fit, a new run starts from it.")

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_trainer_options(parser)
        # Not required, because a checkpoint names its network. `parse_arguments` reports a missing network.
        parser.add_lightning_class_args(Classifier, "model", subclass_mode=True, required=False)
        parser.add_class_arguments(MNISTDataModule, "data", skip={"images"})  # an option of `predict` only
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        words = configs_first(sys.argv[1:] if args is None else list(args), COMMANDS)
        self.processes = StartingTogether()
        runs_alone = any(COMMANDS[word].run for word in words if word in COMMANDS)
        with nullcontext() if runs_alone else self.processes.ending_together():
            self.config = parser.parse_args(words)
        given = self.config[self.config.subcommand]
        if run_command := COMMANDS[self.config.subcommand].run:
            run_command(given, self.parser.commands["fit"], words)
            raise SystemExit(0)
        self.processes.num_nodes = given.trainer.num_nodes
        with self.processes.ending_together():
            self.config, self.resumed_run = complete_settings(self.parser, self.config, words, self.processes)

    def _parse_ckpt_path(self) -> None:
        """Do nothing. `parse_arguments` reads the checkpoint."""

    def before_instantiate_classes(self) -> None:
        trainer = self.config[self.subcommand].trainer
        if self.subcommand != "fit" or self.resumed_run or trainer.logger is False or trainer.barebones:
            self.save_config_callback = None  # there is no run folder, or it has a config.yaml

    def instantiate_classes(self) -> None:
        super().instantiate_classes()
        if ckpt_path := self.config[self.subcommand].ckpt_path:
            load_weights(self.model, SavedNetwork.read(ckpt_path))  # refuses those that do not fit

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer from the settings, with the logger, callbacks and plugins of this package."""
        settings = self.config_init[self.subcommand].trainer
        refuse_unsupported_strategy(self.config[self.subcommand].trainer.strategy)
        refuse_no_batches(str(self.subcommand), settings)
        given = as_list(settings.callbacks)
        callbacks: list[Callback] = []
        has_bar = any(isinstance(callback, ProgressBar) for callback in given)
        if settings.enable_progress_bar is not False and not settings.barebones and not has_bar:
            callbacks.append(Progress())
        if self.subcommand == "fit":
            fit = self.config.fit
            refuse_unsupported(settings, given, fit.ckpt_path)
            callbacks += training_callbacks(self.config_init.fit, save_best=self.datamodule.val_size > 0)
            kwargs["max_time"] = None  # its Timer is among the callbacks
            if settings.logger in (None, True) and not settings.barebones:
                kwargs["logger"] = run_logger(runs_folder(fit), self.resumed_run)
        else:
            kwargs["logger"] = False
        kwargs["plugins"] = with_own_plugins(as_list(settings.plugins))
        self.trainer_defaults["callbacks"] = callbacks
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise UserError(f"These settings of the trainer do not work: {error}") from None

    def after_instantiate_classes(self) -> None:
        # If this process ends with an error, the processes of the other devices would wait for it forever.
        launcher: Any = self.trainer.strategy.launcher
        if launcher is not None:
            atexit.register(launcher.kill, getattr(signal, "SIGKILL", signal.SIGTERM))  # Windows has no SIGKILL
        if self.processes.size > 1:
            with self.processes.ending_together():  # Lightning would leave the other nodes waiting
                if self.trainer.local_rank == 0:
                    self.datamodule.prepare_data()
                self.processes.share("")

    def fit(self, model: Classifier, datamodule: MNISTDataModule) -> None:
        if self.resumed_run and self.trainer.is_global_zero:
            print(f"Resuming {self.resumed_run.folder}")
        train(self.trainer, model, datamodule, self.config.fit.ckpt_path)

    def validate(self, model: Classifier, datamodule: MNISTDataModule) -> None:
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=self.config.validate.ckpt_path, verbose=False)
        self._print_result("validation", model.val_metrics)

    def test(self, model: Classifier, datamodule: MNISTDataModule) -> None:
        self.trainer.test(model, datamodule=datamodule, ckpt_path=self.config.test.ckpt_path, verbose=False)
        self._print_result("test", model.test_metrics)

    def predict(self, model: Classifier, datamodule: MNISTDataModule) -> None:
        given = self.config.predict
        predict(self.trainer, model, datamodule, given.ckpt_path, given.also, given.contact_sheet)

    def _print_result(self, images: str, metrics: EpochMetrics) -> None:
        result = metrics.compute()  # collective: it reduces over all processes
        if self.trainer.is_global_zero:
            print(describe_result(type(self.model).__name__, images, result))


def main(args: ArgsType = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 1 for an error, 128 + the number of a signal. Exits with 2 if the command line is not valid.
    """
    prepare_output()
    speed_up_cpu()
    texts = {name: command.help for name, command in COMMANDS.items()}
    parser = {"prog": PROGRAM, "description": "Train and compare small networks on MNIST.", "command_help": texts}
    try:
        with interrupted_by_signals():
            CLI(
                Classifier,
                MNISTDataModule,
                subclass_mode_model=True,
                parser_kwargs=parser,
                parser_class=Parser,
                auto_configure_optimizers=False,
                args=args,
            )
    except (Interrupted, UserError, MisconfigurationException, OSError) as error:
        traceback.clear_frames(error.__traceback__)  # it keeps progress bars, which would be drawn after the last line
        return print_error(error)
    return 0
