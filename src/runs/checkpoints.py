"""Checkpoints as data: written whole or not at all, checked before they are read, never run."""

import io
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from src.system.errors import UserError
from src.system.files import replace_when_whole

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


class CheckedCheckpointIO(TorchCheckpointIO):
    """Saves to a temporary file in the same folder, syncs and renames it; loads with `load_checkpoint`.

    The checkpoint that ``last.ckpt`` replaces stays beside it, as ``previous.ckpt``.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replace_when_whole(path) as file:
                torch.save(checkpoint, file)
                if path.name == LAST and path.exists():
                    spare = path.with_name(f".{PREVIOUS}.part")
                    spare.unlink(missing_ok=True)
                    os.link(path, spare)
                    spare.replace(path.with_name(PREVIOUS))
        except (OSError, RuntimeError) as error:
            # torch, closing the archive that could not be written, hides the reason behind one of its own.
            cause = error if isinstance(error, OSError) else error.__context__
            reason = cause.strerror if isinstance(cause, OSError) else " ".join(str(error).split())[:200]
            kept = f" {path} is the one before." if path.exists() else ""
            raise UserError(f"A checkpoint can't be written to {path.parent}: {reason}.{kept}") from None

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return load_checkpoint(path)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a Lightning checkpoint into CPU memory, as plain data: nothing in it is run or imported.

    Raises:
        UserError: The file is missing, damaged, not a checkpoint, or asks to run something.
    """
    try:
        checkpoint = torch.load(_verified_copy(path), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"There is no checkpoint {path}.") from None
    except OSError as error:
        raise UserError(f"The checkpoint {path} can't be read: {error.strerror}.") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"The checkpoint {path} holds more than plain data; it is refused, and nothing in it was run."
        ) from None
    except Exception:  # there is no end to the ways in which a damaged archive can fail
        raise UserError(f"The checkpoint {path} is empty or damaged. Take an earlier one, or train again.") from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is not a checkpoint of Lightning.")
    written_by = checkpoint.get("pytorch-lightning_version")
    if isinstance(written_by, str) and _minor(written_by) > _minor(lightning.__version__):
        raise UserError(f"{path} was written by lightning {written_by}, newer than the {lightning.__version__} here.")
    return checkpoint


def _minor(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:2]]


def _verified_copy(path: str | Path) -> io.BytesIO:
    """The archive packed anew from its parts, each checked against its CRC.

    torch.load checks no CRC, and a flipped bit in the archive's directory can make it skip a tensor.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    copy.seek(0)
    return copy
