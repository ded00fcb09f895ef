"""The command line: LightningCLI with this project's commands, run folders and error messages.

Private names used here: ``LightningCLI._parse_ckpt_path`` is replaced, because it lets a checkpoint override the
command line and import modules.
"""

import atexit
import sys
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from src.cli.commands import COMMANDS
from src.cli.messages import NAME_A_CHECKPOINT, NAME_A_NETWORK, PROGRAM, Parser, silence_noise
from src.cli.resume import refuse_other_settings, run_to_resume, words_to_resume
from src.cli.settings import refuse_contradictions, runs_folder, saved_settings
from src.data import MNISTDataModule
from src.inference.predictions import predict
from src.models import Classifier, EpochMetrics
from src.runs.checkpoints import CheckedCheckpointIO
from src.runs.folder import Run
from src.system.errors import UserError
from src.system.memory import keep_freed_pages
from src.training.callbacks import Progress, describe_result
from src.training.stopping import Interrupted
from src.training.trainer import run_logger, train, training_callbacks


class CLI(LightningCLI):
    """Reads the command line and the configs, builds network, data and Trainer, and runs the command.

    ``fit`` writes a run folder and tests its last weights. The other commands take the settings of network and data
    from the checkpoint. `src.cli.commands` lists all commands.
    """

    parser: Parser
    resumed_run: Run | None = None

    # --- Options -------------------------------------------------------------------------------------------

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        hidden = {"weights_only", "verbose", "return_predictions"}  # decided here
        skipped = LightningCLI.subcommands()
        return {name: skipped[name] | hidden for name, command in COMMANDS.items() if command.run is None}

    def setup_parser(self, *args: Any) -> None:
        super().setup_parser(*args)
        for name, command in COMMANDS.items():
            if command.run is not None:
                self.parser.add_command(name, Parser())
            command.add_options(self.parser.commands[name])

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--seed_everything",
            type=int,
            default=0,
            help="Seed of the initial weights, of dropout, and of the order of the images.",
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Trainer, "trainer")
        parser.set_defaults({"trainer.max_epochs": 12, "trainer.num_sanity_val_steps": 0})
        # Not required, because a checkpoint names its network. `parse_arguments` reports a missing network.
        parser.add_lightning_class_args(Classifier, "model", subclass_mode=True, required=False)
        parser.add_class_arguments(MNISTDataModule, "data", skip={"images"})  # an option of `predict` only
        parser.link_arguments("seed_everything", "data.seed")

    # --- Settings ------------------------------------------------------------------------------------------

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        words = sys.argv[1:] if args is None else list(args)
        super().parse_arguments(parser, args)
        command, fit_parser = self.config.subcommand, self.parser.commands["fit"]
        given = self.config[command]
        if run_command := COMMANDS[command].run:
            run_command(given, fit_parser, words)
            raise SystemExit(0)
        if not 0 <= given.seed_everything < 2**32:
            raise UserError(f"--seed_everything is {given.seed_everything}; it must be 0 … {2**32 - 1}.")
        if command == "fit" and given.resume and (run := run_to_resume(given, fit_parser)):
            self.resumed_run = run
            args = words_to_resume(run, given.resume, words)
            super().parse_arguments(parser, args)
            given = self.config.fit
            refuse_other_settings(run, given, fit_parser)
        if given.ckpt_path is not None:
            self._take_settings_of_checkpoint(parser, args)
        elif command != "fit":
            raise UserError(NAME_A_CHECKPOINT)
        elif given.model is None:
            raise UserError(NAME_A_NETWORK)

    def _take_settings_of_checkpoint(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Make the settings of the checkpoint the defaults, so that a given setting can be compared with them."""
        command = self.config.subcommand
        given = self.config[command]
        saved = saved_settings(given.ckpt_path, given.model)
        try:
            self.parser.commands[command].set_defaults(saved)
        except KeyError as error:
            raise UserError(f"{given.ckpt_path} is from another version of this package: {error}") from None
        super().parse_arguments(parser, args)
        refuse_contradictions(self.config[command], saved)

    def _parse_ckpt_path(self) -> None:
        """Do nothing. `parse_arguments` reads the checkpoint."""

    # --- Objects -------------------------------------------------------------------------------------------

    def before_instantiate_classes(self) -> None:
        if self.subcommand != "fit" or self.resumed_run:
            self.save_config_callback = None  # there is no run folder, or its config.yaml exists
        elif (max_epochs := self.config.fit.trainer.max_epochs) is not None and max_epochs < 1:
            raise UserError(f"--trainer.max_epochs is {max_epochs}; it must be at least 1.")

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except ValueError as error:
            # jsonargparse wraps what the __init__ of a network raises.
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UserError):
                cause = cause.__cause__ or cause.__context__
            raise cause or error from None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer from the settings, with the logger, callbacks and checkpoint plugin of this package."""
        settings = self.config_init[self.subcommand].trainer
        given, plugins = (_as_list(value) for value in (settings.callbacks, settings.plugins))
        has_checkpoint, has_bar = (any(isinstance(one, kind) for one in given) for kind in (Checkpoint, ProgressBar))
        callbacks: list[Callback] = [] if has_bar or settings.enable_progress_bar is False else [Progress()]
        if self.subcommand == "fit":
            fit = self.config.fit
            save_epochs = settings.enable_checkpointing is not False and not has_checkpoint
            callbacks += training_callbacks(
                self.datamodule, fit.save_every_n_steps, fit.save_every_n_minutes, save_epochs
            )
            if settings.logger in (None, True):
                kwargs["logger"] = run_logger(runs_folder(fit), self.resumed_run)
        else:
            kwargs |= {"logger": False, "enable_checkpointing": has_checkpoint}
        kwargs["plugins"] = [*plugins, CheckedCheckpointIO()]
        self.trainer_defaults["callbacks"] = callbacks
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise UserError(f"These settings of the trainer do not work: {error}") from None

    def after_instantiate_classes(self) -> None:
        # If this process ends with an error, the processes of the other devices would wait for it forever.
        atexit.register(_kill_processes, self.trainer.strategy.launcher)

    # --- Commands with a Trainer ---------------------------------------------------------------------------

    def fit(self, model: Classifier, datamodule: MNISTDataModule, ckpt_path: str | None) -> None:
        if self.resumed_run and self.trainer.is_global_zero:
            print(f"Resuming {self.resumed_run.folder}")
        train(self.trainer, model, datamodule, ckpt_path)

    def validate(self, **kwargs: Any) -> None:
        self.trainer.validate(verbose=False, **kwargs)
        self._print_result("validation", self.model.val_metrics)

    def test(self, **kwargs: Any) -> None:
        self.trainer.test(verbose=False, **kwargs)
        self._print_result("test", self.model.test_metrics)

    def predict(self, **kwargs: Any) -> None:
        given = self.config.predict
        predict(self.trainer, **kwargs, also=given.also, contact_sheet=given.contact_sheet)

    def _print_result(self, images: str, metrics: EpochMetrics) -> None:
        result = metrics.compute()  # collective: it reduces over all processes
        if self.trainer.is_global_zero:
            print(describe_result(type(self.model).__name__, images, result))


def _kill_processes(launcher: Any) -> None:
    for process in getattr(launcher, "procs", []):
        process.kill()


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def main(args: ArgsType = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, 1 for an error, 128 + the number of a signal. Exits with 2 if the command line is not valid.
    """
    silence_noise()
    keep_freed_pages()
    try:
        CLI(
            Classifier,
            MNISTDataModule,
            subclass_mode_model=True,
            parser_kwargs={
                "prog": PROGRAM,
                "description": "Train and compare small networks on MNIST.",
                "command_help": {name: command.help for name, command in COMMANDS.items()},
            },
            parser_class=Parser,
            auto_configure_optimizers=False,
            args=args,
        )
    except Interrupted as interrupted:
        if rank_zero_only.rank:  # type: ignore[attr-defined]
            return 0  # Lightning kills the first process if another one ends with an error
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
