"""What only Linux has is hidden, in place of Windows and of file systems with less."""

import errno
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.cli.messages import prepare_output
from src.runs.checkpoints import CheckedCheckpointIO, load_checkpoint
from src.runs.folder import Run
from tests.conftest import CURVES_ALONE, ROOT

HIDE = """
import os, platform, signal, sys
for name in ("SIGHUP", "SIGUSR1", "SIGKILL"):
    delattr(signal, name)
for name in ("fork", "sched_getaffinity", "setsid"):
    delattr(os, name)
for name in ("fcntl", "resource"):
    sys.modules[name] = None
signal.valid_signals = lambda: {signal.SIGINT, signal.SIGTERM, signal.SIGABRT}
platform.libc_ver = lambda *args: ("", "")
def relpath(path, start=os.curdir):
    raise ValueError("path is on mount 'C:', start on mount 'D:'")
os.path.relpath = relpath
import lightning.pytorch.trainer.connectors.signal_connector as connector
connector._IS_WINDOWS = True  # Lightning asks for the name of the system
from src.cli.main import main
sys.exit(main())
"""
SHORT = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=2")


def test_trains_and_resumes_without_what_only_linux_has(mnist: Path, tmp_path: Path) -> None:
    """With the character set of a Western Windows for its outputs."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"}
    settings = ("--model=LeNet5", f"--data.data_dir={mnist}", "--trainer.limit_test_batches=2", *SHORT, CURVES_ALONE)
    command = [sys.executable, "-c", HIDE, "fit", "--resume=auto", *settings]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, encoding="cp1252")
    assert ended.returncode == 0, ended.stderr
    assert "LeNet5: test accuracy" in ended.stdout and "Traceback" not in ended.stderr
    run = Run(tmp_path / "lightning_logs" / "lenet5" / "version_0")
    assert run.is_finished and run.previous_checkpoint.is_file()


def test_a_config_in_utf8_where_files_have_another_encoding(tmp_path: Path) -> None:
    """As on Windows, in ASCII."""
    (tmp_path / "config.yaml").write_text("data: {classes: [ä, お]}", encoding="utf-8")
    env = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "src", "fit", "--config", str(tmp_path / "config.yaml")]
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    message = r"error: \S+: It is not a text file in (?!UTF-8)\S+\. If it is in UTF-8, set PYTHONUTF8=1\.\nSee: .*\n"
    assert re.fullmatch(message, ended.stderr)


def test_characters_that_an_encoding_lacks_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="cp1252"))
    prepare_output()
    print("お: −14.0 ± 1.2", end="", flush=True)
    assert output.getvalue() == "?: -14.0 ± 1.2".encode("cp1252")


def test_the_checkpoint_before_is_kept_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))  # as on exFAT

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "last.ckpt"
    for number in range(3):
        CheckedCheckpointIO().save_checkpoint({"state_dict": {"w": torch.tensor(number)}}, path)
    assert [int(load_checkpoint(path)["state_dict"]["w"])] == [2]
    assert int(load_checkpoint(tmp_path / "previous.ckpt")["state_dict"]["w"]) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]
