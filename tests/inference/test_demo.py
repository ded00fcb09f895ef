"""The page of `demo` in Chromium, with a real network: digits are drawn with the mouse."""

import base64
import io
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.data.pictures import read_image
from src.inference.demo import answer, keep_picture, newest_checkpoints
from src.runs.network import TrainedNetwork
from src.system.machine import install_command
from tests.conftest import RunCLI, train
from tests.forks import ROOT, Fork

STROKES = {  # points x, y from the middle of the canvas, in pixels
    7: [(-60, -80), (0, -84), (60, -80), (30, -20), (0, 30), (-20, 90)],
    1: [(0, -90), (2, -30), (0, 30), (2, 90)],
    0: [(0, -80), (-45, -50), (-60, 0), (-35, 60), (0, 80), (40, 60), (60, 0), (45, -50), (0, -80)],
}


@pytest.fixture(scope="module")
def networks(lenet5_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A network that can read, and one that has hardly learned. For the screenshot: version_0 of both in RUNS."""
    if existing := os.environ.get("RUNS"):
        runs = [Path(existing).resolve() / name / "version_0" for name in ("lenet5", "cnn")]
    else:
        folder = tmp_path_factory.mktemp("networks")
        limits = {"train": 120, "val": 1, "test": 1}
        short = [f"--trainer.limit_{name}_batches={number}" for name, number in limits.items()]
        train(folder, "--config=configs/lenet5-fast.yaml", "--trainer.max_epochs=1", *short)
        runs = [folder / "lightning_logs" / "lenet5" / "version_0", lenet5_run]
    return [run / "checkpoints" / "last.ckpt" for run in runs]


class Demo:
    """The page in a browser."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.get(address)
        self.canvas = self.wait(lambda: browser.find_elements("css selector", "canvas"))[0]

    def wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.browser, 60, ignored_exceptions=[StaleElementReferenceException])
        return waiting.until(lambda _: condition())

    def click(self, text: str) -> None:
        self.browser.find_element("xpath", f"//button[normalize-space()='{text}']").click()

    def draw(self, digit: int) -> None:
        from selenium.webdriver import ActionChains

        self.click("Clear")
        self.wait(lambda: not self.answers() and "Draw a digit, or" in self.text())
        (x, y), *others = STROKES[digit]
        actions = ActionChains(self.browser, duration=10).move_to_element_with_offset(self.canvas, x, y)
        actions.click_and_hold()
        for to_x, to_y in others:
            actions.move_by_offset(to_x - x, to_y - y)
            x, y = to_x, to_y
        actions.release().perform()
        self.wait(self.answers)

    def answers(self) -> list[list[float]]:
        """The ten probabilities of each network."""
        sections = self.browser.find_elements("css selector", "section[data-network]")
        return [
            [float(bar.get_attribute("value")) for bar in section.find_elements("css selector", "meter")]
            for section in sections
        ]

    def text(self) -> str:
        return self.browser.find_element("css selector", "body").text


@pytest.fixture
def demo(browser: Any, networks: list[Path], tmp_path: Path) -> Iterator[tuple[Demo, Fork]]:
    options = ("--ckpt_path", str(networks[0]), "--also", str(networks[1]))
    process = Fork(tmp_path, "demo", *options, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
    process.wait_until(lambda: "http" in process.out.read_text() if process.out.exists() else False)
    address = re.search(r"http\S+", process.out.read_text())
    assert address
    yield Demo(browser, address[0]), process
    process.kill()


def test_digits_are_drawn_and_read(demo: tuple[Demo, Fork], tmp_path: Path) -> None:
    page, process = demo
    for digit in STROKES:
        page.draw(digit)
        for probabilities in page.answers():
            assert len(probabilities) == 10 and sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert int(np.argmax(page.answers()[0])) == digit
    if path := os.environ.get("DEMO_SCREENSHOT"):
        size = {"width": 1280, "height": 640, "deviceScaleFactor": 1, "mobile": False}
        page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.draw(7)
        page.browser.save_screenshot(str(ROOT / path))

    page.click("Save as wrong")
    page.wait(lambda: "choose the right answer first" in page.text())
    page.browser.find_element("css selector", "input[type=radio][value='0']").click()
    page.click("Save as wrong")
    page.wait(lambda: "Saved as" in page.text())
    [saved] = (tmp_path / "drawings").iterdir()
    assert saved.name.startswith("0_")
    seen = page.browser.find_element("css selector", "figure img").get_attribute("src")
    with Image.open(io.BytesIO(base64.b64decode(seen.partition(",")[2]))) as image:
        assert torch.equal(torch.from_numpy(np.array(image)), read_image(saved))  # `predict` sees the same

    # Nothing came from another host.
    loaded = page.browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded and all(name.startswith((page.browser.current_url, "data:", "blob:")) for name in loaded)

    process.send_signal(signal.SIGINT)
    outcome = process.wait()
    assert outcome.code == 0 and outcome.out.endswith("The demo has ended.\n"), outcome


def test_files_are_dropped(demo: tuple[Demo, Fork], tmp_path: Path) -> None:
    page, _ = demo
    drop = page.browser.find_element("css selector", "input[type=file]").send_keys
    (tmp_path / "notes.txt").write_text("no picture")
    drop(str(tmp_path / "notes.txt"))
    page.wait(lambda: "This is not a picture in PNG" in page.text())
    assert not page.answers()
    photo = Image.fromarray(np.full((3000, 4000), 200, np.uint8))
    photo.paste(30, (1900, 500, 2150, 2500))  # a thick 1
    photo.save(tmp_path / "photo.jpg")
    page.browser.find_element("css selector", "[aria-label='Clear'], [aria-label='Remove this file']").click()
    drop = page.wait(lambda: page.browser.find_elements("css selector", "input[type=file]"))[0].send_keys
    drop(str(tmp_path / "photo.jpg"))
    page.wait(page.answers)
    assert int(np.argmax(page.answers()[0])) == 1


def test_a_second_finger_draws_nothing(demo: tuple[Demo, Fork]) -> None:
    page, _ = demo
    x, y = page.browser.execute_script(
        "let box = arguments[0].getBoundingClientRect();return [box.x + box.width / 2, box.y + box.height / 2]",
        page.canvas,
    )

    def touch(kind: str, *points: tuple[int, int]) -> None:
        fingers = [{"x": x + right, "y": y + down, "id": finger} for finger, (right, down) in enumerate(points)]
        page.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    touch("touchStart", (0, -80))
    touch("touchMove", (0, -40))
    touch("touchStart", (0, -40), (80, 0))
    for down in (0, 40, 80):
        touch("touchMove", (0, down), (80, down // 2))
    touch("touchEnd")
    page.wait(page.answers)
    left, right = page.browser.execute_script(
        "let pixels = arguments[0].getContext('2d').getImageData(0, 0, 280, 280).data, found = [280, 0];"
        "pixels.forEach((value, i) => {"
        "  if (i % 4 == 0 && value < 128) {"
        "    let x = i / 4 % 280; found = [Math.min(found[0], x), Math.max(found[1], x)];"
        "  }"
        "}); return found",
        page.canvas,
    )
    assert 125 < left < right < 155  # one vertical stroke, 16 pixels wide


def test_several_digits_are_mentioned(lenet5_run: Path) -> None:
    picture = Image.new("L", (400, 200), 255)
    for left in (90, 270):
        picture.paste(0, (left, 30, left + 30, 170))
    file = io.BytesIO()
    picture.save(file, "png")
    networks = {"tiny": TrainedNetwork(lenet5_run / "checkpoints" / "last.ckpt")}
    assert "2 digits?" in answer(file.getvalue(), networks)[1]
    picture.paste(255, (200, 0, 400, 200))
    picture.save(file := io.BytesIO(), "png")
    assert "digits?" not in answer(file.getvalue(), networks)[1]


def test_label_cannot_leave_the_folder(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("L", (5, 5)).save(picture, "png")
    path = keep_picture(picture.getvalue(), "T-shirt/../top", tmp_path)
    assert path.parent == tmp_path and path.name.startswith("T-shirt____top_") and path.suffix == ".png"


def test_newest_finished_run_of_each_network(tmp_path: Path) -> None:
    for name, finished in (
        ("a/version_0", True),
        ("a/version_2", True),
        ("a/version_10", False),
        ("b/version_1", True),
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
        if finished:
            (tmp_path / name / "results.json").touch()
    assert newest_checkpoints(tmp_path) == [
        tmp_path / name / "checkpoints" / "last.ckpt" for name in ("a/version_2", "b/version_1")
    ]


def test_without_runs(cli: RunCLI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = cli("demo")
    assert outcome.code == 1
    assert outcome.err == "error: There is no finished run in lightning_logs. Train one: make lenet5\n"


def test_port_is_taken(cli: RunCLI, lenet5_run: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = cli("demo", f"--ckpt_path={lenet5_run}/checkpoints/last.ckpt", f"--port={port}")
    assert outcome.code == 1
    assert outcome.err == f"error: Port {port} is taken. Choose another --port.\n"


def test_without_gradio(cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "src.inference.demo")
    monkeypatch.setitem(sys.modules, "gradio", None)
    outcome = cli("demo")
    assert outcome.code == 1
    assert outcome.err == f"error: gradio is not installed. demo needs: {install_command('demo')}\n"
