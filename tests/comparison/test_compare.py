"""`python -m src compare` as a user runs it: trainings, report, what is kept, what is refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from src.report.sections import SECTIONS
from src.runs.folder import Run
from src.system.errors import UserError
from tests.conftest import NO_TABS, ROOT, RunCLI
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
    announced = r"Run (\d) of 4: Tiny, seed (\d) \((.*)\)"
    first = re.findall(announced, (trained / "first.log").read_text())
    second = re.findall(announced, (trained / "second.log").read_text())
    assert [run[:2] for run in first] == [("1", "0"), ("2", "0"), ("3", "1")]
    assert [run[:2] for run in second] == [("3", "1"), ("4", "1")]
    assert first[0][2] == "time left unknown until each network has a run"
    assert re.fullmatch(r"about \d+ min left", second[0][2])
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
    words = ["compare", "--train", *configs, "--seeds", "1", "--output", str(tmp_path / "new")]
    run = tmp_path / "lightning_logs" / "tiny" / "version_0"
    if number == signal.SIGTERM:
        fork = Fork(tmp_path, *words, function=command_line_with_forked_trainings)
        fork.wait_until(Run(run).checkpoint.exists)
        fork.send_signal(number)
        outcome = fork.wait(timeout=30)
        code, output = outcome.code, outcome.out + outcome.err
    else:
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        command = [sys.executable, "-m", "src", *words]
        process = subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **pipes)
        deadline = time.monotonic() + 60
        while not Run(run).checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, number)
        output, _ = process.communicate(timeout=30)
        code = process.returncode
    assert code == 128 + number, output
    assert f"Go on with: python -m src fit --resume {run} --model tests.tiny.Tiny\n" in output
    assert output.endswith("Finished runs are kept. Run the same command again to continue.\n")
    assert (run / "checkpoints" / "last.ckpt").exists()


def test_the_first_answer_comes_before_any_image_is_tested(
    trained: Path, cli: RunCLI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has the errors and the verdict of the report."""

    def evaluate(*args: Any) -> None:
        raise UserError("Not yet.")

    monkeypatch.setattr("src.comparison.compare.evaluate", evaluate)
    folders = [str(trained / f"width{width}") for width in (0, 32)]
    outcome = cli("compare", *folders, *TINY, "--output", str(tmp_path))
    assert (outcome.code, outcome.err) == (1, "error: Not yet.\n")
    report = read(trained)
    for network in report["networks"]:
        errors = f"{network['errors']['mean']:,.1f} ± {network['errors']['sd']:,.1f}"
        assert re.search(rf"^{re.escape(network['name'])} +2 +{re.escape(errors)}$", outcome.out, re.MULTILINE)
    assert report["pairs"][0]["words"][0] in outcome.out


def test_report_tells_the_errors_of_each_run(trained: Path) -> None:
    report = read(trained)
    assert [network["name"] for network in report["networks"]] == ["Tiny (width 0)", "Tiny (width 32)"]
    for network, width in zip(report["networks"], (0, 32), strict=True):
        for run, folder in zip(network["runs"], runs_of(trained, width), strict=True):
            results = json.loads((folder / "results.json").read_text())
            threads = results["machine"]["threads"]
            expected = {"folder": str(folder), "seed": results["seed"], "errors": results["test"]["errors"]}
            assert run == expected | {"threads": threads}
            curve = results["curves"]["accuracy"]["validation"]
            assert network["curves"]["accuracy"]["validation"]["epoch"] == [int(epoch) for epoch in curve]
    parameters = 784 * 32 + 32 + 32 * 10 + 10
    assert report["networks"][1]["parameters"] == parameters
    assert report["networks"][1]["cost"] == {"multiply_adds": 784 * 32 + 32 * 10, "weight_bytes": 4 * parameters}
    assert report["made"]["number_of_runs"].startswith("The number of runs was fixed at 2 of each on 20")
    assert report["made"]["number_of_runs"].endswith("when none were finished.")


def test_kept_answers_are_those_of_the_network(trained: Path) -> None:
    run = runs_of(trained, 0)[0]
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    x = (MNIST(ROOT / "data", train=False).data.reshape(-1, 784).double() / 255 - 0.1307) / 0.3081
    expected = (x @ state["network.1.weight"].double().T + state["network.1.bias"].double()).softmax(dim=1)
    with np.load(run / "evaluation.npz") as kept:
        np.testing.assert_allclose(kept["probabilities"], expected, atol=1e-5)


def test_again_from_folders_gives_the_same_numbers(trained: Path, cli: RunCLI, tmp_path: Path) -> None:
    started = time.monotonic()
    folders = [str(trained / f"width{width}") for width in (0, 32)]
    outcome = cli("compare", *folders, *TINY, "--output", str(tmp_path), "--name", "again")
    seconds = time.monotonic() - started
    assert outcome.code == 0, outcome.err
    assert "Testing" not in outcome.err  # nothing is evaluated twice
    assert seconds < 60
    first, again = read(trained), json.loads((tmp_path / "again" / "report.json").read_text())
    timings, made = first.pop("timings"), first.pop("made")
    assert again.pop("timings").keys() == timings.keys()
    assert again.pop("made")["machines"] == made["machines"]
    assert first == again
    for network in first["networks"]:
        assert re.search(
            rf"^{re.escape(network['name'])} +[\d,]+ +2 +2 +{network['errors']['mean']:,.1f} ±", outcome.out, re.M
        )
    for sentence in first["pairs"][0]["words"]:
        assert sentence in outcome.out
    assert outcome.out.rstrip().endswith(f"Report: {tmp_path / 'again' / 'report.html'}")
    pictures = {path.stem for path in (tmp_path / "again").glob("*.png")}
    assert {"errors", "difference", "confusion", "hardest", "accuracy", "loss", "robustness", "reliability"} <= pictures


def test_bad_runs_are_left_out_by_name(
    trained: Path, cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = [name for section in SECTIONS.values() for name in section.figures()]
    monkeypatch.setattr("src.report.report._draw_figures", lambda *args: dict.fromkeys(figures, b""))  # takes seconds
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    (changed, damaged), (missing, whole) = runs_of(copy, 0), runs_of(copy, 32)
    (missing / "checkpoints" / "last.ckpt").unlink()
    checkpoint = damaged / "checkpoints" / "last.ckpt"
    shutil.copy(checkpoint, changed / "checkpoints" / "last.ckpt")
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    third = shutil.copytree(changed, copy / "width0" / "lightning_logs" / "tiny" / "version_2")
    shutil.copy(trained / checkpoint.relative_to(copy), third / "checkpoints" / "last.ckpt")
    results = json.loads((damaged / "results.json").read_text())
    results |= {"seed": 7, "machine": {"device": "<script>alert(1)</script>"}, "stopped_early": True, "steps": 45}
    (third / "results.json").write_text(json.dumps(results))

    outcome = cli("compare", str(copy / "width0"), str(copy / "width32"), *TINY, "--output", str(copy / "new"))
    assert outcome.code == 0, outcome.err
    assert f"{changed}: its kept evaluation is of another checkpoint" in outcome.out
    assert re.search(
        rf"Left out: {changed}: Its checkpoint makes \d+ errors, but its results.json says \d+", outcome.out
    )
    assert f"Left out: {damaged}: The checkpoint {checkpoint} is empty or damaged" in outcome.out
    assert f"Left out: {missing}: Its checkpoint" in outcome.out
    assert "One run says nothing about the spread between seeds" in outcome.out
    report = json.loads((copy / "new" / "tiny" / "report.json").read_text())
    assert [[run["folder"] for run in network["runs"]] for network in report["networks"]] == [
        [str(third)],
        [str(whole)],
    ]
    assert report["pairs"][0]["mcnemar"] is not None
    page = (copy / "new" / "tiny" / "report.html").read_text()
    for folder in (changed, damaged, missing):
        assert f"<code>{folder}</code>" in page
    stopped_early = "Stopped early: 1 of the 1 runs of Tiny (width 0), after 45 steps."
    assert stopped_early in outcome.out and stopped_early in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page


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
        ([], 1, "Name folders of runs, or configs"),
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
    words = read(trained)["pairs"][0]["words"]
    assert browser.execute_script("return document.querySelector('h1').textContent") == words[0]
    text = browser.execute_script("return document.body.innerText")
    for expected in (
        *words,
        "Tiny (width 32)",
        "Robustness",
        "Left out" if read(trained)["left_out"] else "How it was made",
    ):
        assert expected in text
    drawn = browser.execute_script("return [...document.images].map(image => [image.naturalWidth, image.currentSrc])")
    assert len(drawn) == 9
    assert all(natural_width > 500 and source.startswith("data:image/png") for natural_width, source in drawn)
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 28)")
    overflow = browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert overflow <= 0  # nothing is cut off on a phone
    assert browser.get_log("browser") == []
