"""`fit --resume`: which run is resumed, from which checkpoint, and with which settings."""

import os
import sys
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from src.cli.messages import NAME_A_NETWORK
from src.cli.settings import recipe_of, runs_folder
from src.runs.checkpoints import load_checkpoint
from src.runs.folder import Run, find_runs
from src.runs.recipe import SURROUNDINGS, differences, has_recipe, recipe
from src.runs.trust import refuse_foreign_code
from src.system.errors import UserError
from src.training.callbacks import describe_result

CHOSEN_RUN = "RESUMED_RUN"  # environment variable that passes the choice of --resume auto to the other processes


def run_to_resume(given: Namespace, parser: LightningArgumentParser) -> Run | None:
    """The run named with ``--resume``. For "auto", the newest unfinished run with these settings, or None."""
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
        settings = recipe_of(given, parser, SURROUNDINGS)
        unfinished = [
            run
            for run in find_runs(runs_folder(given))
            if not run.is_finished and has_recipe(run, settings, SURROUNDINGS) and not run.is_busy
        ]
        os.environ[CHOSEN_RUN] = str(unfinished[-1].folder) if unfinished else ""
    chosen = os.environ.get(CHOSEN_RUN)
    return Run(Path(chosen)) if chosen else None


def words_to_resume(run: Run, given: Namespace, words: list[str]) -> list[str]:
    """The command line with the config of `run` before all other settings, and the checkpoint to continue from.

    Ends the program if the run is finished.
    """
    if run.is_finished:
        print(f"{run.folder} is finished: {describe_result(run.results['model'], 'test', run.results['test'])}.")
        raise SystemExit(0)
    trainer = run.config.get("trainer")
    if not isinstance(trainer, dict):
        raise UserError(f"{run.config_file} is damaged: it has no settings of the trainer.")
    if trainer.get("max_steps") not in (None, -1):
        raise UserError("A training with --trainer.max_steps cannot be resumed exactly. Use --trainer.max_epochs.")
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
        load_checkpoint(run.previous_checkpoint)
        print(f"{error}\nContinuing from the previous checkpoint: {run.previous_checkpoint}", file=sys.stderr)
        return run.previous_checkpoint
    return run.checkpoint


def refuse_other_settings(run: Run, given: Namespace, parser: LightningArgumentParser) -> None:
    """Raise a `UserError` if a setting given by the user differs from that of the run, and decides the result."""
    settings = recipe_of(given, parser, SURROUNDINGS)
    if changed := differences(settings, recipe(run.config, SURROUNDINGS)):
        raise UserError(f"{run.folder} was started with other settings: {', '.join(changed)}.")
