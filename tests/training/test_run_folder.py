"""Nothing is removed or overwritten that the training did not make."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from lightning import Callback, LightningModule, Trainer

from tests.conftest import CURVES_ALONE, ROOT, SHORT, Refused, RunCLI

QUICK = (*SHORT, "--trainer.limit_test_batches=2")


def run_logger(save_dir: Path, name: str, version: str) -> str:
    arguments = {"save_dir": str(save_dir), "name": name, "version": version}
    return f"--trainer.logger={json.dumps({'class_path': 'src.tensorboard.logger.RunLogger', 'init_args': arguments})}"


@pytest.mark.parametrize("folder", ["proj", "proj/lenet5/version_0"])
@pytest.mark.parametrize("wrong", [(), ("--trainer.callbacks=tests.mistaken.FailingCallback",)])
def test_a_folder_with_files_is_refused_and_kept(
    refused: Refused, tmp_path: Path, folder: str, wrong: tuple[str, ...]
) -> None:
    """`refused` compares all files with those before."""
    project = tmp_path / folder
    (project / "train").mkdir(parents=True)
    for name in ("notes.txt", "train/events.out.tfevents.1", ".lock"):
        (project / name).write_text("mine")
    name, version = ("", "") if folder == "proj" else ("lenet5", "version_0")
    message = refused("fit", "--model=LeNet5", *QUICK, *wrong, run_logger(tmp_path / "proj", name, version))
    assert f"error: {project} is not empty, and is not the run to resume." in message


def test_a_finished_run_is_never_trained_into(refused: Refused, cli: RunCLI, tmp_path: Path) -> None:
    """Not even if its config.yaml was removed, as Lightning advises."""
    run = cli("fit", "--model=LeNet5", *QUICK).run
    again = ("fit", "--model=LeNet5", *QUICK, run_logger(tmp_path / "lightning_logs", "lenet5", "version_0"))
    assert f"{run} is not empty" in refused(*again)
    (run / "config.yaml").unlink()
    assert f"{run} is not empty" in refused(*again)
    assert "there is no" in refused("fit", f"--resume={run}")


def test_an_empty_folder_is_used(cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = cli("fit", "--model=LeNet5", *QUICK, run_logger(tmp_path, "empty", ""))
    assert outcome.code == 0, outcome.err
    assert outcome.run == tmp_path / "empty"


class LeavesANote(Callback):
    """As another program would, while the training starts."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        Path(str(trainer.log_dir), "notes.txt").write_text("mine")
        raise KeyError("missing")


def test_of_a_training_that_never_began_only_files_of_others_stay(cli: RunCLI, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        cli("fit", "--model=LeNet5", *QUICK, "--trainer.callbacks=tests.training.test_run_folder.LeavesANote")
    folder = tmp_path / "lightning_logs" / "lenet5" / "version_0"
    assert [path.relative_to(folder) for path in folder.rglob("*")] == [Path("notes.txt")]


def test_a_closed_pipe_loses_no_result(tmp_path: Path, mnist: Path) -> None:
    command = [sys.executable, "-m", "src", "fit", "--model=LeNet5", *QUICK, CURVES_ALONE]
    training = subprocess.Popen(
        [*command, f"--trainer.default_root_dir={tmp_path}"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert training.stdout is not None and training.stderr is not None
    training.stdout.close()
    errors = training.stderr.read().decode()
    assert training.wait(300) == 0, errors
    assert (tmp_path / "lightning_logs" / "lenet5" / "version_0" / "results.json").is_file()
