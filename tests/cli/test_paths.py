"""Paths of the user: `~`, variables, links, and URLs, which are no paths."""

from pathlib import Path

import pytest

from src.runs.folder import find_runs
from tests.conftest import SHORT, Refused, RunCLI
from tests.forks import Fork

QUICK = (*SHORT, "--trainer.limit_test_batches=2")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mnist: Path) -> Path:
    """A home folder with the data in it."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "data").symlink_to(mnist)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    return home


def test_home_and_variables_in_configs_and_options(cli: RunCLI, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: LeNet5\ndata: {data_dir: ~/data}\n")
    (tmp_path / "runs").symlink_to(tmp_path)  # where the fixture puts the runs: it adds the option
    run = cli("fit", f"--config={config}", *QUICK).run
    assert not Path("~").exists()
    checkpoint = f"$RUNS/{run.relative_to(tmp_path)}/checkpoints/last.ckpt"
    tested = cli("test", f"--ckpt_path={checkpoint}", "--data.data_dir=~/data", "--trainer.limit_test_batches=2")
    assert tested.code == 0, tested.err
    exported = cli("export", f"--ckpt_path={checkpoint}", "--output=~/exported", "--data_dir=~/data")
    assert exported.code == 0, exported.err
    assert (tmp_path / "home" / "exported" / "model.onnx").is_file()


@pytest.mark.parametrize(
    "command",
    [
        "fit --model LeNet5 --data.data_dir {}",
        "fit --resume {}",
        "test --ckpt_path {}",
        "predict --ckpt_path {}",
        "export --ckpt_path {}",
        "compare {}",
        "compare --train {}",
        "demo --ckpt_path {}",
    ],
)
def test_a_url_is_not_a_path(refused: Refused, command: str) -> None:
    assert "s3://bucket/folder is not a path on this machine" in refused(*command.format("s3://bucket/folder").split())
    assert not Path("s3:").exists()


def test_a_url_is_not_a_folder_for_runs(tmp_path: Path) -> None:
    settings = ("fit", "--model=LeNet5", "--trainer.default_root_dir=s3://bucket/folder")
    outcome = Fork(tmp_path, *settings, cwd=tmp_path).wait()
    assert "error: s3://bucket/folder is not a path on this machine" in outcome.err
    assert not (tmp_path / "s3:").exists()


def test_runs_in_linked_folders_are_found_once(tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "version_0"
    disk.mkdir(parents=True)
    (disk / "config.yaml").touch()
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "linked").symlink_to(disk.parent)
    (runs / "loop").symlink_to(runs)
    assert [run.folder for run in find_runs(runs)] == [runs / "linked" / "version_0"]
