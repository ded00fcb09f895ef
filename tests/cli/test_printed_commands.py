"""Commands that the package prints work when they are pasted into a shell, from a folder with a space in its name."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, SHORT
from tests.forks import Fork, Outcome

SETTINGS = (*SHORT, "--trainer.limit_test_batches=2", "--trainer.limit_train_batches=40", "--save_every_n_steps=1")
FOREIGN = ("--model=tests.tiny.WithParts", "--trainer.callbacks=tests.recorder.Recorder")


@pytest.fixture
def project(tmp_path: Path, mnist: Path) -> Path:
    """A folder in which one works, with a space in its name."""
    folder = tmp_path / "my project"
    folder.mkdir()
    (folder / "data").symlink_to(mnist)
    return folder


def paste(text: str, project: Path) -> Outcome:
    """Run the command that a text ends with."""
    found = re.search(r"python -m src .*", text)
    assert found, text
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = os.environ | {"PATH": programs, "PYTHONPATH": str(ROOT), "RECORD": str(project), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(found[0], shell=True, cwd=project, env=env, capture_output=True, text=True, timeout=300)
    return Outcome(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("names", [("--model=LeNet5",), FOREIGN])
def test_the_command_that_resumes(project: Path, names: tuple[str, ...]) -> None:
    """Of a network of this package, and of one with a callback of the user, whose config is named then."""
    root = f"--trainer.default_root_dir={project / 'all runs'}"
    env = {"PYTHONPATH": str(ROOT), "RECORD": str(project)}
    training = Fork(project.parent, "fit", *names, *SETTINGS, root, env=env, cwd=project)
    training.wait_until(lambda: bool(list(project.rglob("last.ckpt"))))
    training.send_signal(signal.SIGTERM)
    stopped = training.wait()
    assert stopped.code == 128 + signal.SIGTERM, stopped
    assert ("--config" in stopped.err) is (names is FOREIGN)
    resumed = paste(stopped.err, project)
    assert resumed.code == 0, resumed.err
    assert "Resuming" in resumed.out and resumed.run.parent.parent.parent == project / "all runs"


def test_the_commands_that_compare_asks_for(project: Path, lenet5_run: Path) -> None:
    """For a run without answers, and for one that is not finished."""
    runs = [
        Path(shutil.copytree(lenet5_run, project / "all runs" / name / "version_0")) for name in ("a/1", "a/2", "b")
    ]
    (runs[0] / "answers.npz").unlink()
    (runs[1] / "results.json").unlink()
    config = runs[2] / "config.yaml"
    config.write_text(config.read_text().replace("max_epochs: 1", "max_epochs: 2"))  # another recipe
    said = Fork(
        project.parent, "compare", "all runs/a", "all runs/b", cwd=project, env={"PYTHONPATH": str(ROOT)}
    ).wait()
    assert said.code == 1
    for line, written in zip(said.err.splitlines()[-2:], ("results.json", "answers.npz"), strict=True):
        pasted = paste(line, project)
        assert pasted.code == 0, (line, pasted.err)
        assert any((run / written).is_file() for run in runs), line
