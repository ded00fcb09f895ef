"""The notebook runs from top to bottom and shows what it promises."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT


def test_the_notebook_trains_and_shows_curves_errors_and_a_prediction(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGS", str(tmp_path))
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    assert len(notebook.cells) < 20
    assert not any(cell.get("outputs") for cell in notebook.cells)  # committed without outputs
    (training,) = [cell for cell in notebook.cells if "max_epochs=2" in cell.source]
    training.source = training.source.replace(
        'TensorBoardLogger("lightning_logs"', 'TensorBoardLogger(os.environ["LOGS"]'
    ).replace("max_epochs=2", "max_epochs=2, limit_train_batches=30, limit_val_batches=5")
    assert 'os.environ["LOGS"]' in training.source and "limit_train_batches" in training.source
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT / "examples")}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    assert "test accuracy 9" in text or "test accuracy 8" in text  # chance is 10 %
    assert "label 7, predicted 7" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
