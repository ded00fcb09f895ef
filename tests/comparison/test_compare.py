"""`python -m src compare` as a user runs it: trainings, report, what is left out, what is refused."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from src.data.source import read_mnist
from src.report.page import FIGURES
from src.runs.answers import write_answers
from src.runs.folder import Run
from tests.comparison.made_up import CLASSES, TIMING, make_runs
from tests.conftest import NO_TABS, ROOT, RunCLI, files
from tests.forks import Fork, command_line_with_forked_trainings

CONFIG = """
model: {{class_path: tests.tiny.Tiny, init_args: {{width: {width}}}}}
data: {{data_dir: {data}, batch_size: 256}}
trainer: {{max_epochs: 2, limit_train_batches: 30, default_root_dir: {folder}, enable_progress_bar: false}}
tensorboard: {tabs}
"""

TINY = ("--model", "tests.tiny.Tiny")


@pytest.fixture(scope="module")
def trained(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two configs of Tiny trained by `compare --train` with two seeds each, interrupted in the third run."""
    folder = tmp_path_factory.mktemp("compared")
    for width in (0, 32):
        path = folder / f"tiny{width}.yaml"
        path.write_text(CONFIG.format(width=width, data=mnist, folder=folder / f"width{width}", tabs=NO_TABS))
    command = ["compare", "--train", str(folder / "tiny0.yaml"), str(folder / "tiny32.yaml")]
    command += ["--seeds", "2", "--name", "tiny", "--output", str(folder / "comparison")]
    third = folder / "width0" / "lightning_logs" / "tiny" / "version_1"
    first = Fork(folder, *command, function=command_line_with_forked_trainings)
    config = third / "config.yaml"
    first.wait_until(lambda: config.exists() and config.stat().st_size > 0)
    first.kill()
    (folder / "first.log").write_text(first.wait().out)
    assert not (third / "results.json").exists()
    second = Fork(folder, *command, function=command_line_with_forked_trainings)
    (folder / "second.log").write_text(second.finish())
    return folder


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "comparison" / "tiny" / "report.json").read_text())


def runs_of(folder: Path, width: int) -> list[Path]:
    return sorted((folder / f"width{width}" / "lightning_logs" / "tiny").iterdir())


def test_trains_each_config_with_each_seed_in_turn_and_goes_on_where_it_was_killed(trained: Path) -> None:
    announced = r"^(tiny\d+), seed (\d) \((\d of \d)\)$"
    first = re.findall(announced, (trained / "first.log").read_text(), re.MULTILINE)
    second = re.findall(announced, (trained / "second.log").read_text(), re.MULTILINE)
    assert first == [("tiny0", "0", "1 of 4"), ("tiny32", "0", "2 of 4"), ("tiny0", "1", "3 of 4")]
    assert second == [("tiny0", "1", "1 of 2"), ("tiny32", "1", "2 of 2")]
    for width in (0, 32):  # the run that was killed went on in its folder
        assert [json.loads((run / "results.json").read_text())["seed"] for run in runs_of(trained, width)] == [0, 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_training_save_itself(mnist: Path, tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM to the comparison alone, and Ctrl-C, which a terminal sends to the training too."""
    for width in (0, 32):
        config = CONFIG.format(width=width, data=mnist, folder=tmp_path, tabs=NO_TABS).replace("30", "30000")
        config += "save_every_n_steps: 10\n"
        (tmp_path / f"tiny{width}.yaml").write_text(config)
    configs = [str(tmp_path / "tiny0.yaml"), str(tmp_path / "tiny32.yaml")]
    args = ["compare", "--train", *configs, "--seeds", "1", "--output", str(tmp_path / "new")]
    run = tmp_path / "lightning_logs" / "tiny" / "version_0"
    if number == signal.SIGTERM:
        fork = Fork(tmp_path, *args, function=command_line_with_forked_trainings)
        fork.wait_until(Run(run).checkpoint.exists)
        fork.send_signal(number)
        outcome = fork.wait()
        code, output = outcome.code, outcome.out + outcome.err
    else:
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, "-m", "src", *args]
        process = subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **pipes)
        while not Run(run).checkpoint.exists():  # a busy machine may take minutes for the imports
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=300)
        code = process.returncode
    assert code == 128 + number, output
    assert f"Go on with: python -m src fit --config {run}/config.yaml --resume {run}\n" in output
    assert output.endswith("Finished runs are kept. Run the same command again to continue.\n")
    assert (run / "checkpoints" / "last.ckpt").exists()


def test_report_tells_the_errors_of_each_run(trained: Path) -> None:
    report = read(trained)
    networks = {network["name"]: network for network in report["networks"]}
    assert networks.keys() == {"Tiny (width 0)", "Tiny (width 32)"}
    assert report["networks"] == sorted(networks.values(), key=lambda network: network["errors"]["mean"])
    for width in (0, 32):
        network = networks[f"Tiny (width {width})"]
        for run, folder in zip(network["runs"], runs_of(trained, width), strict=True):
            results = json.loads((folder / "results.json").read_text())
            threads = results["machine"]["threads"]
            expected = {"folder": str(folder), "seed": results["seed"], "errors": results["test"]["errors"]}
            assert run == expected | {"threads": threads}
            curve = results["curves"]["accuracy"]["validation"]
            assert network["curves"]["accuracy"]["validation"]["epoch"] == [int(epoch) for epoch in curve]
    parameters = 784 * 32 + 32 + 32 * 10 + 10
    assert networks["Tiny (width 32)"]["parameters"] == parameters
    cost = {"multiply_adds": 784 * 32 + 32 * 10, "weight_bytes": 4 * parameters}
    assert networks["Tiny (width 32)"]["cost"] == cost
    assert report["made"]["number_of_runs"].startswith("The number of runs was fixed at 2 of each on 20")
    assert report["made"]["number_of_runs"].endswith("when none were finished.")


def test_again_from_folders_gives_the_same_numbers(trained: Path, cli: RunCLI, tmp_path: Path) -> None:
    folders = [str(trained / f"width{width}") for width in (0, 32)]
    outcome = cli("compare", *folders, *TINY, "--output", str(tmp_path), "--name", "again")
    assert outcome.code == 0, outcome.err
    first, again = read(trained), json.loads((tmp_path / "again" / "report.json").read_text())
    timings, made = first.pop("timings"), first.pop("made")
    assert again.pop("timings").keys() == timings.keys()
    assert again.pop("made")["machines"] == made["machines"]
    assert first == again
    for network in first["networks"]:
        errors = f"{network['errors']['mean']:,.1f} ±"
        assert re.search(rf"^{re.escape(network['name'])} +[\d,]+ +2 +2 +{errors}", outcome.out, re.M)
    for sentence in first["pairs"][0]["verdict_sentences"]:
        assert sentence in outcome.out
    assert outcome.out.endswith(f"\n\nReport: {tmp_path / 'again' / 'report.html'}\n")
    figures = {path.stem for path in (tmp_path / "again").glob("*.png")}
    assert figures == {"errors", "difference", "confusion", "digits", "hardest", "accuracy", "loss", "reliability"}


# --- Made-up runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def test_images(mnist: Path) -> tuple[Tensor, Tensor]:
    return read_mnist(mnist, "t10k")


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither figures nor times, which take seconds."""
    monkeypatch.setattr("src.report.page.draw_figures", lambda *args: dict.fromkeys(FIGURES, b""))
    monkeypatch.setattr(
        "src.report.sections.cost.time_inference", lambda networks, shape: dict.fromkeys(networks, TIMING)
    )


def test_bad_runs_are_left_out_by_name(
    mnist: Path, test_images: tuple[Tensor, Tensor], cli: RunCLI, tmp_path: Path, no_figures: None
) -> None:
    data = {"data_dir": str(mnist)}
    cnn = make_runs(tmp_path / "my runs" / "cnn", [80, 90, 85, 88, 81, 82], test_images, "CNN", **data)
    lenet5 = make_runs(tmp_path / "my runs" / "lenet5", [100, 101], test_images, **data)
    (cnn[0] / "answers.npz").unlink()
    (cnn[1] / "answers.npz").write_bytes(b"PK")
    images_NHW, labels_N = test_images
    described = CLASSES, (1, 28, 28)
    write_answers(cnn[2], torch.full((100, 10), 0.1), labels_N[:100], images_NHW[:100], *described)
    write_answers(cnn[3], torch.full((10_000, 10), 0.1), labels_N, 255 - images_NHW, *described)
    write_answers(cnn[4], torch.full((10_000, 10), float("nan")), labels_N, images_NHW, *described)
    checkpoint = lenet5[0] / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    results = json.loads((cnn[5] / "results.json").read_text())
    results |= {"machine": {"device": "<script>alert(1)</script>"}, "stopped_early": True, "steps": 45}
    (cnn[5] / "results.json").write_text(json.dumps(results))

    outcome = cli("compare", str(tmp_path / "my runs"), "--output", str(tmp_path / "new"))
    assert outcome.code == 0, outcome.err
    command = f"python -m src test --config '{cnn[0]}/config.yaml' --ckpt_path '{cnn[0]}/checkpoints/last.ckpt'"
    assert f"Left out: {cnn[0]}: It has no answers.npz. Write it: {command}\n" in outcome.out
    assert f"Left out: {cnn[1]}: Its answers.npz is damaged." in outcome.out
    assert f"Left out: {cnn[2]}: It was tested on 100 images of 10 classes; this test set has 10,000" in outcome.out
    assert f"Left out: {cnn[3]}: It was tested on another test set." in outcome.out
    assert f"Left out: {cnn[4]}: Its network answers with NaN." in outcome.out
    assert f"Left out: {lenet5[0]}: The checkpoint {checkpoint} is empty or damaged" in outcome.out
    assert "One run says nothing about the spread between seeds" in outcome.out
    report = json.loads((tmp_path / "new" / "cnn-vs-lenet5" / "report.json").read_text())
    runs = [[run["folder"] for run in network["runs"]] for network in report["networks"]]
    assert runs == [[str(cnn[5])], [str(lenet5[1])]]
    assert [run["errors"] for network in report["networks"] for run in network["runs"]] == [82, 101]
    assert report["pairs"][0]["mcnemar"] is not None
    page = (tmp_path / "new" / "cnn-vs-lenet5" / "report.html").read_text()
    for folder in (*cnn[:5], lenet5[0]):
        assert f"<code>{folder}</code>" in page
    stopped_early = "Stopped early: 1 of the 1 runs of CNN, after 45 steps."
    assert stopped_early in outcome.out and stopped_early in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_corruptions_are_computed_on_request(
    mnist: Path, test_images: tuple[Tensor, Tensor], cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("src.comparison.corruptions.IMAGES_PER_CLASS", 2)
    for model in ("LeNet5", "CNN"):
        make_runs(tmp_path / model, [80, 90], test_images, model, data_dir=str(mnist))
    before = files(tmp_path)
    folders = [str(tmp_path / model) for model in ("LeNet5", "CNN")]
    outcome = cli("compare", *folders, "--output", str(tmp_path / "new"), "--robustness")
    assert outcome.code == 0, outcome.err
    assert "Corrupted images" in outcome.err
    report = json.loads((tmp_path / "new" / "lenet5-vs-cnn" / "report.json").read_text())
    assert report["robustness_images"] == 20
    errors = report["networks"][0]["robustness"]["corruptions"]
    assert {len(errors[name]["mean"]) for name in errors} == {5} and len(errors) == 8
    assert all(0 <= rate <= 1 for name in errors for rate in errors[name]["mean"])
    assert (tmp_path / "new" / "lenet5-vs-cnn" / "robustness.png").exists()
    assert {
        path: content for path, content in files(tmp_path).items() if tmp_path / "new" not in path.parents
    } == before


def test_a_folder_with_other_files_is_not_written_into(
    mnist: Path, test_images: tuple[Tensor, Tensor], cli: RunCLI, tmp_path: Path
) -> None:
    for model in ("LeNet5", "CNN"):
        make_runs(tmp_path / model, [80, 90], test_images, model, data_dir=str(mnist))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "loss.png").touch()
    before = files(tmp_path)
    outcome = cli("compare", str(tmp_path), "--output", str(tmp_path), "--name", "mine")
    message = f"error: {tmp_path / 'mine'} has other files in it. Choose another folder with --name.\n"
    assert (outcome.code, outcome.out, outcome.err) == (1, "", message)
    assert files(tmp_path) == before


def test_a_checkpoint_never_imports_its_module(trained: Path, tmp_path: Path) -> None:
    refused = Fork(tmp_path, "compare", str(trained / "width0"), str(trained / "width32")).wait()
    assert refused.code == 1
    assert "add: --model tests.tiny.Tiny" in refused.err
    assert "Traceback" not in refused.err


def test_one_network_is_not_a_comparison(trained: Path, cli: RunCLI, tmp_path: Path) -> None:
    outcome = cli("compare", str(trained / "width0"), "--output", str(tmp_path / "new"))
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "error: There is only Tiny to compare. Name runs of two networks or more.\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 1, "Name folders of runs, such as"),
        (["no/such/folder"], 1, "There is no folder no/such/folder."),
        (["tests"], 1, "There is no finished run below tests."),
        (["--train", "no/such.yaml"], 2, "no/such.yaml"),
        (
            ["--train", "configs/cnn.yaml", "configs/cnn.yaml"],
            1,
            "configs/cnn.yaml trains the same as configs/cnn.yaml.",
        ),
        (["--train", "configs/cnn.yaml"], 1, "There is only CNN to compare. Name runs of two networks or more."),
        (["--train", "configs/ddp.yaml"], 1, "configs/ddp.yaml names no network."),
        (["tests", "--seeds", "0"], 2, "--seeds 0 is not valid"),
        (["tests", "--margin", "-1"], 2, "--margin"),
        (["tests", "--name", "../elsewhere"], 1, "--name '../elsewhere' is not the name of a folder."),
        (["tests", "--model", "no.such.Network"], 1, "no.such.Network is not a network"),
        (["tests", "--model", "src.models.Missing"], 1, "src.models.Missing is not a network"),
    ],
)
def test_bad_input_gets_a_plain_answer(cli: RunCLI, args: list[str], code: int, message: str) -> None:
    outcome = cli("compare", *args)
    assert outcome.code == code
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert len(outcome.err.splitlines()) <= 2


# --- In a browser --------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_opens_in_a_browser(trained: Path, browser: Any, width: int, scheme: str) -> None:
    page = trained / "comparison" / "tiny" / "report.html"
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get("about:blank")
    browser.get_log("browser")  # discards the messages of earlier pages
    browser.get(page.as_uri())
    sentences = read(trained)["pairs"][0]["verdict_sentences"]
    assert browser.execute_script("return document.querySelector('h1').textContent") == sentences[0]
    text = browser.execute_script("return document.body.innerText")
    for expected in (
        *sentences,
        "Tiny (width 32)",
        "Curves",
        "Left out" if read(trained)["left_out"] else "How it was made",
    ):
        assert expected in text
    drawn = browser.execute_script("return [...document.images].map(image => [image.naturalWidth, image.currentSrc])")
    assert len(drawn) == 8
    assert all(natural_width > 500 and source.startswith("data:image/png") for natural_width, source in drawn)
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 28)")
    overflow = browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow <= 0  # nothing is cut off on a phone
    assert browser.get_log("browser") == []
