from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

TINY = ("tune", "--model=tests.tiny.Tiny", "--data.val_size=500", "--trainer.max_epochs=2")
SEARCH = "model.lr: {log: [1e-4, 1e-2]}\nmodel.width: {choice: [0, 16]}\ndata.max_shift: {int: [0, 2]}\n"
SETTINGS = ("model.lr", "model.width", "data.max_shift")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@pytest.fixture(scope="session")
def training_images(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder without the test images."""
    folder = tmp_path_factory.mktemp("training_images")
    (folder / "MNIST" / "raw").mkdir(parents=True)
    paths = sorted((mnist / "MNIST" / "raw").glob("train-*"))
    for path in paths:
        (folder / "MNIST" / "raw" / path.name).symlink_to(path.resolve())
    assert paths
    return folder


def study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / 'study.db'}")


def with_result(folder: Path, *states: TrialState) -> list[FrozenTrial]:
    return study(folder).get_trials(states=states)
