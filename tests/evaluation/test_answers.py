"""What is kept of an evaluation is used again only for the same checkpoint, test images and corruptions."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from src.evaluation import answers, corruptions
from src.evaluation.answers import Evaluation, evaluate
from src.runs.folder import LOCK, Run
from src.system.files import locked
from tests.tiny import Tiny

IMAGES_NHW = torch.randint(256, (40, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS_N = torch.arange(40) % 10


class FakeNetwork:
    """Answers with random weights that the checkpoint's text seeds; counts how often checkpoints are read."""

    read = 0

    def __init__(self, path: Path) -> None:
        FakeNetwork.read += 1
        torch.manual_seed(len(path.read_text()))
        self.network = Tiny()

    def probabilities(self, images_NHW: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return [self.network(images_NHW[:, None].float() / 255).softmax(dim=1)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run = Run(tmp_path)
    run.checkpoint.parent.mkdir()
    run.checkpoint.write_text("a checkpoint")
    monkeypatch.setattr(answers, "TrainedNetwork", FakeNetwork)
    errors = int((FakeNetwork(run.checkpoint).probabilities(IMAGES_NHW)[0].argmax(dim=1) != LABELS_N).sum())
    run.__dict__["results"] = {"test": {"errors": errors, "images": 40}}
    FakeNetwork.read = 0
    return run


def evaluate_again(run: Run, images_NHW: Tensor = IMAGES_NHW, labels_N: Tensor = LABELS_N) -> tuple[bool, str]:
    """Whether the network was needed, and why the run is left out, if it is."""
    FakeNetwork.read = 0
    evaluations, left_out = evaluate([run], images_NHW, labels_N)
    assert (run in evaluations) != (run in left_out)
    return FakeNetwork.read > 0, left_out.get(run, "")


def test_the_same_inputs_are_evaluated_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_again(run) == (True, "")
    assert evaluate_again(run) == (False, "")
    assert capsys.readouterr().out == ""


def test_two_comparisons_write_one_after_the_other(run: Run) -> None:
    with ThreadPoolExecutor() as pool:
        with locked(run.folder / LOCK):
            evaluated = pool.submit(evaluate_again, run)
            with pytest.raises(TimeoutError):
                evaluated.result(timeout=2)
            assert not (run.folder / "evaluation.npz").exists()
        assert evaluated.result() == (True, "")


def test_corruptions_with_another_parameter_are_evaluated_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate_again(run)
    stronger = corruptions.CORRUPTIONS["blur"]._replace(strengths=(0.5, 1, 1.5, 2, 3))
    others = {name: value for name, value in corruptions.CORRUPTIONS.items() if name != "blur"}
    changes: dict[str, list[Any]] = {
        "CORRUPTIONS": [corruptions.CORRUPTIONS | {"blur": stronger}, others],
        "SEED": [1],
        "IMAGES_PER_CLASS": [2],
        "VERSION": [corruptions.VERSION + 1],
    }
    for name, values in changes.items():
        for value in values:
            with monkeypatch.context() as patch:
                patch.setattr(corruptions, name, value)
                patch.setattr(answers, "CORRUPTIONS", corruptions.CORRUPTIONS)
                assert evaluate_again(run)[0], name
                assert "is evaluated again" in capsys.readouterr().out
                assert not evaluate_again(run)[0]


def test_another_checkpoint_is_evaluated_again(run: Run) -> None:
    evaluate_again(run)
    run.checkpoint.write_text("another checkpoint")
    assert evaluate_again(run)[0]


def test_a_test_set_of_another_size_or_with_other_labels_is_evaluated_again(run: Run) -> None:
    evaluate_again(run)
    again, reason = evaluate_again(run, IMAGES_NHW[:30], LABELS_N[:30])
    assert (again, reason) == (True, "It was tested on 40 images; this test set has 30.")
    assert evaluate_again(run) == (True, "")
    again, reason = evaluate_again(run, labels_N=(LABELS_N + 1) % 10)
    assert again  # else the errors under corruptions would be those of the other labels
    assert evaluate_again(run, images_NHW=255 - IMAGES_NHW)[0]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", None])
def test_a_damaged_file_is_evaluated_again(run: Run, content: bytes | None) -> None:
    kept = run.folder / "evaluation.npz"
    if content is None:
        np.savez(kept, other=np.zeros(3))
    else:
        kept.write_bytes(content)
    assert evaluate_again(run) == (True, "")
    (evaluation,) = evaluate([run], IMAGES_NHW, LABELS_N)[0].values()
    assert isinstance(evaluation, Evaluation)
    assert evaluation.probabilities_NK.shape == (40, 10)
    assert evaluation.robustness_CS.shape == (8, 5)
