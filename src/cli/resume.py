"""Settings that a run or a checkpoint adds to the command line: which run is resumed, and from which checkpoint."""

import json
import os
import sys
from hashlib import sha256
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from src.cli.messages import NAME_A_CHECKPOINT, NAME_A_NETWORK, Parser
from src.cli.settings import refuse_contradictions, saved_settings
from src.runs.checkpoints import load_checkpoint
from src.runs.folder import Run, find_runs, runs_folder
from src.runs.recipe import Role, differences, has_recipe, recipe, recipe_of
from src.runs.trust import no_imports, refuse_foreign_code
from src.system.errors import UserError
from src.system.processes import SharedError, StartingTogether
from src.training.callbacks import describe_result

CHOSEN_RUN = "RESUMED_RUN"  # environment variable that passes the choice of --resume auto to the other processes


def complete_settings(
    parser: Parser, config: Namespace, words: list[str], processes: StartingTogether
) -> tuple[Namespace, Run | None]:
    """Add the settings of the run to resume and of the checkpoint to those of the command line.

    Returns:
        The settings, and the run to resume if there is one.
    """
    command, fit_parser = config.subcommand, parser.commands["fit"]
    given, run = config[command], None
    if not 0 <= given.seed_everything < 2**32:
        raise UserError(f"--seed_everything is {given.seed_everything}; it must be 0 … {2**32 - 1}.")
    refuse_different_settings(processes, config, parser.commands[command])
    if command == "fit" and given.resume and (run := run_to_resume(given, fit_parser, processes)):
        words = words_to_resume(run, given, words)
        with no_imports():
            config = parser.parse_args(words)
        given = config.fit
        refuse_other_settings(run, given, fit_parser)
    if given.ckpt_path is not None:
        # The settings of the checkpoint become the defaults. Given settings are compared with them.
        saved = saved_settings(given.ckpt_path, given.model)
        with no_imports(), Parser.reading(given.ckpt_path):
            try:
                parser.commands[command].set_defaults(saved)
            except KeyError as error:
                raise UserError(f"{given.ckpt_path} is from another version of this package: {error}") from None
            config = parser.parse_args(words)
        refuse_contradictions(config[command], parser.commands[command], saved)
    elif command != "fit":
        raise UserError(NAME_A_CHECKPOINT)
    elif given.model is None:
        raise UserError(NAME_A_NETWORK)
    refuse_different_checkpoints(processes, [given.ckpt_path, *given.get("also", [])])
    return config, run


def run_to_resume(given: Namespace, parser: LightningArgumentParser, processes: StartingTogether) -> Run | None:
    """The run named with ``--resume``. For "auto", the newest unfinished run with these settings, or None.

    Process 0 chooses for all.
    """
    if given.ckpt_path is not None:
        raise UserError("--resume continues a run, --ckpt_path starts a new run: give only one of them.")
    if given.resume != "auto":
        named = Path(given.resume)
        run = Run(named.parent.parent if named.is_file() else named)
        if not run.config_file.is_file():
            raise UserError(f"{given.resume} is not a run: there is no {run.config_file}.")
        return run
    if given.model is None:
        raise UserError(NAME_A_NETWORK)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        settings = recipe_of(given, parser, Role.SURROUNDINGS)
        unfinished = [
            run
            for run in find_runs(runs_folder(given))
            if not run.is_finished and has_recipe(run, settings, Role.SURROUNDINGS) and not run.is_busy
        ]
        os.environ[CHOSEN_RUN] = str(unfinished[-1].folder) if unfinished else ""
    elif processes.size == 1 and CHOSEN_RUN not in os.environ:
        raise UserError("--resume auto works with torchrun, srun and Lightning's launcher. Name the run: --resume RUN")
    chosen = os.environ[CHOSEN_RUN] = processes.share(os.environ.get(CHOSEN_RUN, ""))[0]
    return Run(Path(chosen)) if chosen else None


def refuse_different_settings(processes: StartingTogether, config: Namespace, parser: LightningArgumentParser) -> None:
    """Raise a `SharedError` if the processes were started with different settings."""
    if processes.size == 1:
        return
    settings = {"command": config.subcommand} | recipe_of(config[config.subcommand], parser, Role.PATH)
    first, *others = map(json.loads, processes.share(json.dumps(settings, default=str)))
    for rank, other in enumerate(others, start=1):
        if changed := differences(first, other):
            raise SharedError(f"Process {rank} has other settings than process 0: {', '.join(changed)}.")


def refuse_different_checkpoints(processes: StartingTogether, paths: list[str | None]) -> None:
    """Raise a `SharedError` if the processes read different checkpoints, as on nodes without a shared folder."""
    if processes.size == 1:
        return
    digests = processes.share(str([sha256(Path(path).read_bytes()).hexdigest() for path in paths if path]))
    if others := [rank for rank, digest in enumerate(digests) if digest != digests[0]]:
        raise SharedError(
            f"Process {others[0]} does not have the checkpoint of process 0. Each node needs the same run folder: "
            "copy it to the same path."
        )


def words_to_resume(run: Run, given: Namespace, words: list[str]) -> list[str]:
    """The command line with the config of `run` before all other settings, and the checkpoint to continue from.

    Ends the program if the run is finished.
    """
    if run.is_finished:
        try:
            result = describe_result(run.results["model"], "test", run.results["test"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{run.folder / 'results.json'} is damaged, or another version wrote it.") from None
        print(f"{run.folder} is finished: {result}.")
        raise SystemExit(0)
    trainer = run.config.get("trainer")
    if not isinstance(trainer, dict):
        raise UserError(f"{run.config_file} is damaged: it has no settings of the trainer.")
    # A run without a checkpoint starts again from the beginning, in its folder.
    checkpoint = Path(given.resume) if Path(given.resume).is_file() else run.checkpoint
    if given.resume == "auto":  # its settings are those of the command line
        checkpoint = _newest_undamaged_checkpoint(run)
    else:
        refuse_foreign_code(run, given.as_dict())
        command = words.index("fit") + 1
        words = [*words[:command], "--config", str(run.config_file), *words[command:]]
    return [*words, "--ckpt_path", str(checkpoint)] if checkpoint.is_file() else words


def _newest_undamaged_checkpoint(run: Run) -> Path:
    try:
        if run.checkpoint.is_file():
            load_checkpoint(run.checkpoint)
    except UserError as error:
        if not run.previous_checkpoint.is_file():
            raise
        load_checkpoint(run.previous_checkpoint)
        print(f"{error}\nContinuing from the previous checkpoint: {run.previous_checkpoint}", file=sys.stderr)
        return run.previous_checkpoint
    return run.checkpoint


def refuse_other_settings(run: Run, given: Namespace, parser: LightningArgumentParser) -> None:
    """Raise a `UserError` if a setting given by the user differs from that of the run, and decides the result."""
    settings = recipe_of(given, parser, Role.SURROUNDINGS)
    if changed := differences(settings, recipe(run.config, Role.SURROUNDINGS)):
        raise UserError(f"{run.folder} was started with other settings: {', '.join(changed)}.")
