"""Checkpoints as plain data: written completely or not at all, verified before they are read, never executed.

Private names used here: ``_class_path`` and ``_instantiator``, the keys under which LightningCLI saves the class of a
network and its own helper among the hyperparameters.
"""

import io
import os
import pickle
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from src.system.errors import UserError
from src.system.files import replace_when_whole

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
CLASS_PATH, INSTANTIATOR = "_class_path", "_instantiator"
MNIST = "src.data.MNISTDataModule"  # the data module of runs that name none


def without_objects(settings: Any) -> Any:
    """Leave out defaults that no text describes, such as a tensor: jsonargparse puts a sentence in their place."""
    if not isinstance(settings, dict):
        return settings
    described = {name: value for name, value in settings.items() if not str(value).startswith("Unable to serialize")}
    return {name: without_objects(value) for name, value in described.items()}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified, as plain data."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> "Checkpoint":
        """Read a checkpoint file. Raises the errors of `load_checkpoint`."""
        return cls(Path(path), load_checkpoint(path))

    @property
    def class_path(self) -> str | None:
        """The class of the network; None if this command line did not write the checkpoint."""
        return self.content.get("hyper_parameters", {}).get(CLASS_PATH) or self._model.get("class_path")

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the network."""
        if CLASS_PATH in self.content.get("hyper_parameters", {}):
            return self._arguments("hyper_parameters")
        return self._model.get("init_args", {})

    @property
    def data_class_path(self) -> str | None:
        """The class of the data module; None if this command line did not write the checkpoint, or an old version."""
        return data_settings(self._settings)[0] if "data" in self._settings else None

    @property
    def data_arguments(self) -> dict[str, Any]:
        """The arguments of the data module."""
        class_path, arguments = data_settings(self._settings)
        if class_path != MNIST:
            return arguments
        arguments = self._arguments("datamodule_hyper_parameters")
        return arguments if self._seed_of_data is None else arguments | {"seed": None}

    @property
    def seed(self) -> int | None:
        """The seed of the training; None if this command line did not write the checkpoint."""
        return self._settings.get("seed_everything", self._seed_of_data)

    @property
    def _seed_of_data(self) -> int | None:
        """The seed of the data module in a checkpoint of an older version, where it was always that of the training."""
        is_older = "seed_everything" not in self._settings and CLASS_PATH in self.content.get("hyper_parameters", {})
        return self._arguments("datamodule_hyper_parameters").get("seed") if is_older else None

    @property
    def first_step(self) -> int:
        """The number of steps after which it was saved."""
        return self.content.get("global_step", 0)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The state of the network."""
        return self.content["state_dict"]

    @property
    def _model(self) -> dict[str, Any]:
        """What `fit` has saved, of a network that does not save its hyperparameters itself."""
        return self._settings.get("model", {})

    @property
    def _settings(self) -> dict[str, Any]:
        return self.content.get("settings", {})

    def _arguments(self, key: str) -> dict[str, Any]:
        arguments = self.content.get(key, {})
        return {name: value for name, value in arguments.items() if name not in (CLASS_PATH, INSTANTIATOR)}


class CheckedCheckpointIO(TorchCheckpointIO):
    """Saves to a temporary file in the same folder, syncs and renames it; loads with `load_checkpoint`.

    The checkpoint that ``last.ckpt`` replaces is kept beside it as ``previous.ckpt``.

    Args:
        checkpoint: One that the command has read already. Its file is not read again.
    """

    def __init__(self, checkpoint: Checkpoint | None = None) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replace_when_whole(path) as file:
                torch.save(checkpoint, file)
                if path.name == LAST and path.exists():
                    spare = path.with_name(f".{PREVIOUS}.part")
                    spare.unlink(missing_ok=True)
                    try:
                        os.link(path, spare)
                    except OSError:  # exFAT and some network mounts have no hard links
                        shutil.copyfile(path, spare)
                    spare.replace(path.with_name(PREVIOUS))
        except (OSError, RuntimeError) as error:
            # torch fails again when it closes the archive, and that error hides the reason.
            cause = error if isinstance(error, OSError) else error.__context__
            reason = cause.strerror if isinstance(cause, OSError) else " ".join(str(error).split())[:200]
            kept = f" {path} is the previous checkpoint." if path.exists() else ""
            raise UserError(f"Cannot write a checkpoint to {path.parent}: {reason}.{kept}") from cause

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if self.checkpoint is not None and Path(path) == self.checkpoint.path:
            return dict(self.checkpoint.content)
        return load_checkpoint(path)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Load a Lightning checkpoint into CPU memory. Nothing in it is executed or imported.

    Raises:
        UserError: The file is missing, damaged, not a checkpoint, or contains more than plain data.
    """
    try:
        checkpoint = torch.load(_verified_copy(path), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"There is no checkpoint {path}.") from None
    except OSError as error:
        raise UserError(f"Cannot read the checkpoint {path}: {error.strerror}.") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"The checkpoint {path} contains more than plain data. It was refused, and nothing in it was executed."
        ) from None
    except Exception:  # a damaged archive can fail in many ways
        raise UserError(f"The checkpoint {path} is empty or damaged. Use an earlier one, or train again.") from None
    if not isinstance(checkpoint, dict) or not _has_expected_types(checkpoint):
        raise UserError(f"{path} is not a checkpoint of Lightning.")
    version = checkpoint.get("pytorch-lightning_version", "0")
    if _minor(version) > _minor(lightning.__version__):
        raise UserError(f"{path} was written by lightning {version}, newer than the installed {lightning.__version__}.")
    return checkpoint


def _has_expected_types(checkpoint: dict[str, Any]) -> bool:
    """Whether the entries that are read here or by Lightning have the types that Lightning writes."""
    weights = checkpoint.get("state_dict")
    hyperparameters = [
        checkpoint.get(key, {}) for key in ("hyper_parameters", "datamodule_hyper_parameters", "settings")
    ]
    if not all(isinstance(arguments, dict) for arguments in hyperparameters):
        return False
    class_path, arguments = data_settings(hyperparameters[2])
    return (
        isinstance(weights, dict)
        and isinstance(class_path, str)
        and isinstance(arguments, dict)
        and isinstance(hyperparameters[2].get("model", {}), dict)
        and all(isinstance(weight, Tensor) for weight in weights.values())
        and isinstance(hyperparameters[0].get(CLASS_PATH, ""), str)
        and isinstance(checkpoint.get("pytorch-lightning_version", ""), str)
    )


def data_settings(settings: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class of the data module in the settings of a run, and its arguments. Old runs have the arguments alone."""
    data = settings.get("data")
    if not isinstance(data, dict):
        return MNIST, {}
    return (data["class_path"], data.get("init_args") or {}) if "class_path" in data else (MNIST, data)


def _minor(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:2]]


def _verified_copy(path: str | Path) -> io.BytesIO:
    """Repack the archive from its parts, each checked against its CRC.

    torch.load checks no CRC, and a flipped bit in the archive's directory can make it skip a tensor.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    copy.seek(0)
    return copy
