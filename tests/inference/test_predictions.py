"""Predictions are in the order of the images on any number of devices, and unreadable pictures are named."""

import csv
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import MNIST

from src import plots
from src.data.pictures import read_image
from src.inference.predictions import printable
from src.models import LeNet5
from src.runs.checkpoints import load_checkpoint
from src.system.processes import gather_shares
from tests.conftest import ROOT, SHORT, RunCLI, train
from tests.tiny import Tiny
from tests.training.test_distributed import finish, processes, run


def test_shares_of_one_device_are_joined_in_order() -> None:
    rows_NK = torch.arange(14.0).view(7, 2)
    assert torch.equal(gather_shares(list(rows_NK.split(3))), rows_NK)


def test_predict_writes_the_answers_of_the_network(cli: RunCLI, lenet5_run: Path) -> None:
    checkpoint = lenet5_run / "checkpoints" / "last.ckpt"
    before = checkpoint.read_bytes()
    outcome = cli("predict", f"--ckpt_path={checkpoint}")
    assert outcome.code == 0
    assert f"10,000 predictions: {lenet5_run / 'predictions.csv'}" in outcome.out
    assert checkpoint.read_bytes() == before
    with (lenet5_run / "predictions.csv").open() as file:
        assert file.readline() == "image,digit,confidence,runner_up\n"
        rows_NF = np.loadtxt(file, delimiter=",")
    network = LeNet5().eval()
    network.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
    with torch.no_grad():  # the run was trained without normalisation
        logits_NK = network(MNIST(ROOT / "data", train=False).data.unsqueeze(1) / 255)
    confidence_N, digits_N = logits_NK.softmax(1).max(1)
    runner_up_N = logits_NK.argsort(1, descending=True)[:, 1]
    expected_NF = torch.stack([torch.arange(10_000), digits_N, confidence_N, runner_up_N], dim=1)
    np.testing.assert_allclose(rows_NF, expected_NF, rtol=0, atol=1e-4)
    data = json.loads((lenet5_run / "predictions.json").read_text())["predictions"]
    answers = [next(iter(entry["answers"].values())) for entry in data]
    entries = [
        (entry["image"], int(answer["digit"]), answer["confidence"], int(answer["runner_up"]))
        for entry, answer in zip(data, answers, strict=True)
    ]
    np.testing.assert_allclose(entries, rows_NF, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def tiny_run(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another network, trained with normalisation."""
    folder = tmp_path_factory.mktemp("tiny_run")
    train(folder, "--model=tests.tiny.Tiny", *SHORT, "--trainer.limit_test_batches=2")
    return folder / "lightning_logs" / "tiny" / "version_0"


@pytest.fixture
def pictures(mnist: Path, tmp_path: Path) -> Path:
    """Files with the first test images of MNIST, so the predictions for those are expected."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(MNIST(mnist, train=False).data[number].numpy()).save(folder / f"{number}.png")
    return folder


def test_two_networks_answer_side_by_side_each_with_its_normalisation(
    cli: RunCLI,
    lenet5_run: Path,
    tiny_run: Path,
    pictures: Path,
    tmp_path: Path,
    mnist: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (str(folder / "checkpoints" / "last.ckpt") for folder in (lenet5_run, tiny_run))
    x_NCHW = MNIST(mnist, train=False).data[:5].unsqueeze(1) / 255
    expected = {}
    for network, checkpoint, x in ((LeNet5(), first, x_NCHW), (Tiny(), second, (x_NCHW - 0.1307) / 0.3081)):
        network.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
        with torch.no_grad():
            expected["/".join(Path(checkpoint).parts[-4:-2])] = network.eval()(x).softmax(1)
    sheet = tmp_path / "contact.png"
    # Pictures need no data folder.
    no_folder = f"--data.data_dir={pictures / '0.png'}"
    where = ["--data.images", str(pictures), no_folder, f"--contact_sheet={sheet}"]
    drawn: list[plots.Tile] = []
    draw = plots.digit_sheet

    def record(tiles: list[plots.Tile], *args: Any, **kwargs: Any) -> Any:
        drawn.extend(tiles)
        return draw(tiles, *args, **kwargs)

    monkeypatch.setattr(plots, "digit_sheet", record)
    outcome = cli("predict", f"--ckpt_path={first}", "--also", second, *where)
    assert outcome.code == 0, outcome.err
    rows = list(csv.DictReader((lenet5_run / "predictions.csv").open()))
    assert [row["file"] for row in rows] == [str(pictures / f"{number}.png") for number in range(5)]
    assert list(expected) == ["lenet5/version_0", "tiny/version_0"]
    for name, probabilities_NK in expected.items():
        assert name in outcome.out
        for row, probabilities_K in zip(rows, probabilities_NK, strict=True):
            # The conversion of a picture changes some pixels by a few grey values.
            assert int(row[f"{name} digit"]) == probabilities_K.argmax()
            assert float(row[f"{name} confidence"]) == pytest.approx(probabilities_K.max().item(), abs=0.02)
    for row in rows:
        cells = [row[f"{name} {key}"] for name in expected for key in ("digit", "runner_up")]
        (line,) = [line for line in outcome.out.splitlines() if line.startswith(row["file"])]
        assert re.findall(r"(?<= )\d(?!\S)", line) == cells
    assert Image.open(sheet).size[0] > 5 * 28
    for number, (tile, row) in enumerate(zip(drawn, rows, strict=True)):
        assert torch.equal(tile.image, read_image(pictures / f"{number}.png"))
        assert [answer for answer, _ in tile.answers] == [row[f"{name} digit"] for name in expected]


def test_pictures_that_a_limit_leaves_out_are_named(cli: RunCLI, lenet5_run: Path, pictures: Path) -> None:
    few = ("--data.batch_size=2", "--trainer.limit_predict_batches=1")
    checkpoint = lenet5_run / "checkpoints" / "last.ckpt"
    outcome = cli("predict", f"--ckpt_path={checkpoint}", "--data.images", str(pictures), *few)
    assert (outcome.code, outcome.out.count("Omitted because of --trainer.limit_predict_batches.")) == (1, 3)
    assert "3 of 5 could not be predicted" in outcome.err


def test_several_digits_in_a_picture_give_a_warning(cli: RunCLI, lenet5_run: Path, pictures: Path) -> None:
    one = Image.open(pictures / "0.png").convert("L")
    two = Image.new("L", (2 * one.width, one.height))
    for left in (0, one.width):
        two.paste(one, (left, 0))
    two.save(pictures / "two.png")
    checkpoint = lenet5_run / "checkpoints" / "last.ckpt"
    outcome = cli("predict", f"--ckpt_path={checkpoint}", "--data.images", str(pictures))
    assert outcome.code == 0
    expected = {f"{number}.png": "" for number in range(5)} | {"two.png": "2 digits?"}
    with (lenet5_run / "predictions.csv").open() as file:
        assert {Path(row["file"]).name: row["warning"] for row in csv.DictReader(file)} == expected
    data = json.loads((lenet5_run / "predictions.json").read_text())["predictions"]
    assert {Path(row["file"]).name: row["warning"] for row in data} == expected
    assert [line.split()[0] for line in outcome.out.splitlines() if line.endswith("2 digits?")] == [
        str(pictures / "two.png")
    ]


BAD_NAMES = [
    b"new\nline.png",
    b"\xff\xfe.png",
    b'comma,"quote.png',
    b"\x1b[31mred.png",
    "ä 7\u202e.png".encode(),
    b"=1+1.png",
]


def test_unreadable_files_are_named_and_the_others_are_predicted(
    cli: RunCLI, lenet5_run: Path, pictures: Path, tmp_path: Path
) -> None:
    whole = (pictures / "0.png").read_bytes()
    for odd in BAD_NAMES:
        (pictures / os.fsdecode(odd)).write_bytes(whole)
    (pictures / "text.png").write_text("no image")
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (100, 100), 255).save(pictures / "white.png")
    Image.new("1", (20_000, 20_000)).save(pictures / "huge.png")
    (tmp_path / "empty").mkdir()
    checkpoint = lenet5_run / "checkpoints" / "last.ckpt"
    named = [str(pictures), str(tmp_path / "empty"), str(tmp_path / "none.png")]
    outcome = cli("predict", f"--ckpt_path={checkpoint}", "--data.images", *named)
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1] == "error: 6 of 17 could not be predicted; the table gives the reasons."
    assert "Traceback" not in outcome.err and "\x1b[31m" not in outcome.out
    assert "11 predictions" in outcome.out.splitlines()[-1]
    problems = {
        "text.png": "This is not a picture",
        "cut.png": "damaged or incomplete",
        "white.png": "No digit stands out",
        "huge.png": "20,000 × 20,000 pixels are too many",
        "empty": "The folder is empty",
        "none.png": "No such file or directory",
    }
    with (lenet5_run / "predictions.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    data = {row["file"]: row for row in json.loads((lenet5_run / "predictions.json").read_text())["predictions"]}
    assert list(rows) == list(data) and len(rows) == 17
    for name, row in rows.items():
        (line,) = [line for line in outcome.out.splitlines() if line.startswith(f"{name} ")]
        problem = problems.get(Path(name).name)
        if problem:
            assert problem in row["error"] and problem in line and row["digit"] == ""
            assert data[name]["answers"] == {}
        else:
            assert row["error"] == "" and row["digit"] in "0123456789"
    answers = {rows[printable(pictures / os.fsdecode(odd))]["confidence"] for odd in BAD_NAMES}
    assert answers == {rows[str(pictures / "0.png")]["confidence"]}


def test_if_nothing_can_be_read_the_reason_is_printed(cli: RunCLI, lenet5_run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    command = ["predict", f"--ckpt_path={lenet5_run / 'checkpoints' / 'last.ckpt'}", "--data.images", str(tmp_path)]
    outcome = cli(*command, f"--contact_sheet={tmp_path / 'sheet.png'}")
    assert outcome.code == 1
    assert "This is not a picture" in outcome.out and "1 of 1 could not be predicted" in outcome.err
    assert "Warning" not in outcome.err and not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--contact_sheet=a.png"], "name them with --data.images"),
        (["--data.images", "x.png", "--contact_sheet=none/a.png"], "a folder that exists"),
        (["--data.images", "x.png", "--contact_sheet=a.doc"], "name a .png"),
        (["--data.images", "x.png", "--also", "none.ckpt"], "There is no checkpoint none.ckpt"),
        (["--data.images"], "data.images"),
    ],
)
def test_mistakes_are_reported_before_the_work(cli: RunCLI, lenet5_run: Path, args: list[str], message: str) -> None:
    before = sorted(lenet5_run.iterdir())
    outcome = cli("predict", f"--ckpt_path={lenet5_run / 'checkpoints' / 'last.ckpt'}", *args)
    assert outcome.code in (1, 2)
    assert message in outcome.err and "Traceback" not in outcome.err
    assert sorted(lenet5_run.iterdir()) == before


def test_pictures_are_for_predict_alone(cli: RunCLI) -> None:
    outcome = cli("fit", "--model=LeNet5", "--data.images", "x.png")
    assert (outcome.code, "'images' is not accepted" in outcome.err) == (2, True)
    assert "--data.images" in cli("predict", "--help").out


@pytest.mark.slow
def test_two_devices_give_the_predictions_of_one(cli: RunCLI, lenet5_run: Path, pictures: Path, tmp_path: Path) -> None:
    train(tmp_path, "--config=configs/cnn.yaml", *SHORT, "--trainer.limit_test_batches=2")
    cnn_run = tmp_path / "lightning_logs" / "cnn" / "version_0"
    first, second = (str(folder / "checkpoints" / "last.ckpt") for folder in (lenet5_run, cnn_run))
    command = ["predict", f"--ckpt_path={first}", "--also", second, "--data.images", str(pictures)]
    assert cli(*command).code == 0
    alone = np.loadtxt(lenet5_run / "predictions.csv", delimiter=",", skiprows=1, usecols=range(1, 7))
    (lenet5_run / "predictions.csv").unlink()
    output = finish(run(tmp_path, *command, *processes(2)))
    assert output.count("5 predictions") == 1  # printed by one process
    together = np.loadtxt(lenet5_run / "predictions.csv", delimiter=",", skiprows=1, usecols=range(1, 7))
    assert np.abs(alone - together).max() < 2e-6

    (pictures / "text.png").write_text("no image")
    process = run(tmp_path, *command, *processes(2))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "1 of 6 could not be predicted" in output and "Traceback" not in output
