"""Checkpoints: written whole, checked before they are read, never run."""

import pickle
import sys
from pathlib import Path

import pytest
import torch

from src.models import LeNet5
from src.runs.checkpoints import CheckedCheckpointIO, load_checkpoint
from src.runs.network import TrainedNetwork
from src.system.errors import UserError


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "last.ckpt"
    CheckedCheckpointIO().save_checkpoint({"state_dict": {"weight": torch.arange(1000.0)}, "epoch": 3}, path)
    return path


def test_network_is_loaded_where_the_parser_has_not_imported_its_own_modules_yet(
    lenet5_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook, without the command line."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("attr", "attrs")]:
        monkeypatch.delitem(sys.modules, name)
    trained = TrainedNetwork(lenet5_run / "checkpoints" / "last.ckpt")
    assert "attrs" in sys.modules and type(trained.network) is LeNet5


def test_saved_and_loaded(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    assert loaded["epoch"] == 3
    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(1000.0))
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_failed_save_keeps_the_checkpoint_before(checkpoint: Path) -> None:
    before = checkpoint.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        CheckedCheckpointIO().save_checkpoint({"state_dict": {}, "unpicklable": lambda: None}, checkpoint)
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_truncated_checkpoint_is_refused(checkpoint: Path, kept: float) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match="empty or damaged"):
        load_checkpoint(checkpoint)


def test_flipped_bit_anywhere_is_noticed_or_harmless(checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    whole = load_checkpoint(checkpoint)
    refused = 0
    for position in range(0, len(content), 3):
        flipped = content[position] ^ 1 << position // 3 % 8
        checkpoint.write_bytes(content[:position] + bytes([flipped]) + content[position + 1 :])
        try:
            loaded = load_checkpoint(checkpoint)
        except UserError:
            refused += 1
        else:  # in the padding between the parts of the archive
            torch.testing.assert_close(loaded, whole, rtol=0, atol=0)
    assert refused > 4000 / 3  # all that hit one of the 1,000 float32


def test_missing_file_folder_and_other_content(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(UserError, match="Cannot read"):
        load_checkpoint(tmp_path)
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="not a checkpoint of Lightning"):
        load_checkpoint(tmp_path / "other.pt")
