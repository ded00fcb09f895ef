"""TensorBoard's page in Chromium, with two real runs."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src.models import CNN

# The page consists of nested shadow roots, which CSS selectors don't enter.
WALK = """
const skipped = ["STYLE", "SCRIPT", "TEMPLATE", "DOM-MODULE"];
const children = node => [...(node.shadowRoot?.childNodes ?? []), ...node.childNodes];
const all = node => skipped.includes(node.nodeName) ? [] : [node, ...children(node).flatMap(all)];
"""
TEXTS = WALK + "return all(document.body).filter(n => n.nodeType === 3).map(n => n.data.trim()).filter(Boolean)"
ELEMENTS = WALK + "return all(document.body).filter(n => n.nodeType === 1 && n.matches(arguments[0]))"


class Page:
    """One tab of TensorBoard."""

    def __init__(self, browser: Any, url: str, height: int = 1900) -> None:
        self.browser = browser
        self.resize(1280, height)
        browser.get("about:blank")  # a new fragment alone doesn't reload the page
        browser.get(url)

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def wait(self, condition: Any) -> None:
        """Wait until `condition` holds, because the page loads its parts one by one."""
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            ignored = [StaleElementReferenceException]
            WebDriverWait(self.browser, 30, ignored_exceptions=ignored).until(lambda _: condition())
        except TimeoutException:
            pytest.fail(f"The page shows {self.texts()}")

    def texts(self) -> list[str]:
        return self.browser.execute_script(TEXTS)

    def elements(self, selector: str) -> list[Any]:
        return self.browser.execute_script(ELEMENTS, selector)

    def shows(self, *texts: str) -> bool:
        page_text = "\n".join(self.texts())
        return all(text in page_text for text in texts)


def test_accuracy_and_loss_of_ten_runs_are_the_first_that_one_sees(tensorboard_of_ten_runs: str, browser: Any) -> None:
    page = Page(browser, tensorboard_of_ten_runs, height=800)
    page.wait(lambda: [len(colours(card)) for card in page.elements("scalar-card")][:2] == [30, 30])
    first, second = page.elements("scalar-card")[:2]
    assert [name(first), name(second)] == ["curves/accuracy", "curves/loss"]
    assert first.rect["y"] == second.rect["y"]
    for card in (first, second):
        chart = card.find_element("css selector", "line-chart").rect
        assert chart["x"] >= 0 and chart["x"] + chart["width"] <= 1280
        assert chart["y"] >= 0 and chart["y"] + chart["height"] <= 800
        assert chart["width"] > 200 and chart["height"] > 100
        page.wait(lambda card=card: any(width_of_line(card, colour) > 0.1 for colour in colours(card).values()))


def name(card: Any) -> str:
    """Return the tag of a card."""
    return card.find_element("css selector", ".tag").get_attribute("title")


def test_both_curves_of_both_runs_are_in_one_chart_of_accuracy_and_one_of_loss(
    tensorboard: str, runs: list[Path], browser: Any, tmp_path: Path
) -> None:
    names = [f"{run.parent.name}/{run.name}" for run in runs]
    only = "|".join(names)
    page = Page(browser, f"{tensorboard}/?tagFilter=^curves/&runFilter=^({only})/&smoothing=0#timeseries")
    expected = {f"{name}/{sub}" for name in names for sub in ("train", "validation", "test")}
    page.wait(lambda: [len(colours(card)) for card in page.elements("scalar-card")] == [6, 6])
    cards = {name(card): card for card in page.elements("scalar-card")}
    assert cards.keys() == {"curves/accuracy", "curves/loss"}
    for card in cards.values():
        assert colours(card).keys() == expected
        for run, colour in colours(card).items():
            if not run.endswith("test"):  # a single point
                page.wait(lambda card=card, colour=colour: width_of_line(card, colour) > 0.1)
    path = Path(os.environ.get("SCREENSHOT", tmp_path / "tensorboard.png"))
    for button in page.elements("button.settings-button, button.expand-button"):  # closes one, opens the others
        button.click()
    page.wait(lambda: not page.shows("Card Width"))
    page.resize(1280, 740)
    browser.save_screenshot(str(path))
    assert Image.open(path).size == (1280, 740)


def colours(card: Any) -> dict[str, tuple[int, ...]]:
    """Return the colour of each curve, by the names in the table below the chart."""
    by_name = {}
    for row in card.find_elements("css selector", "tb-data-table-content-row"):
        name = text(row.find_elements("css selector", ".cell")[1])
        style = row.find_element("css selector", ".row-circle span").value_of_css_property("background-color")
        by_name[name] = tuple(int(part) for part in style.partition("(")[2].rstrip(")").split(",")[:3])
    return by_name


def width_of_line(card: Any, colour: tuple[int, ...]) -> float:
    """Return the fraction of the chart's columns that contain the colour."""
    chart = Image.open(io.BytesIO(card.find_element("css selector", "line-chart canvas").screenshot_as_png))
    return float((np.abs(np.asarray(chart.convert("RGB")).astype(int) - colour).max(axis=2) < 16).any(axis=0).mean())


def test_other_tabs_show_pictures_texts_and_graph(tensorboard: str, runs: list[Path], browser: Any) -> None:
    page = Page(browser, f"{tensorboard}/#images")
    pictures = ("mistakes", "confusion", "answers", "filters")
    page.wait(lambda: page.shows(*(f"pictures/{name}" for name in pictures)))
    page.wait(lambda: len([i for i in page.elements("img") if int(i.get_property("naturalWidth")) > 300]) >= 8)
    sliders = [slider for slider in page.elements("paper-slider") if slider.get_property("max") == 1]
    assert len(sliders) == 4  # answers and filters of both runs, each after two epochs

    page = Page(browser, f"{tensorboard}/#text")
    page.wait(lambda: page.shows("class_path: src.models.LeNet5", "network.conv1", torch.__version__))

    page = Page(browser, f"{tensorboard}/#graphs")
    layers = {"input", "output", *dict(CNN().network.named_children())}
    page.wait(lambda: {node.get_attribute("data-name") for node in page.elements("g.node")} == layers)


def test_histograms_and_precision_and_recall_are_drawn(tensorboard: str, browser: Any) -> None:
    for tab, element in (("histograms", "vz-histogram-timeseries"), ("distributions", "vz-distribution-chart")):
        page = Page(browser, f"{tensorboard}/#{tab}")
        page.wait(lambda page=page: page.shows("gradients/network.conv1.weight"))
        page.wait(lambda page=page, element=element: any(drawn.rect["height"] > 50 for drawn in page.elements(element)))
    page = Page(browser, f"{tensorboard}/#pr_curves")
    page.wait(lambda: page.shows("test/0", "test/9", "is at"))


def test_the_projector_draws_the_digits(tensorboard: str, runs: list[Path], browser: Any) -> None:
    page = Page(browser, f"{tensorboard}/#projector", height=800)
    try:
        for _ in range(2):  # TensorBoard's frame of a plugin, with the frame of the projector in it
            page.wait(lambda: browser.find_elements("css selector", "iframe"))
            browser.switch_to.frame(browser.find_element("css selector", "iframe"))
        page.wait(lambda: page.shows("2 runs found", "512x84"))

        def digits() -> float:
            """The fraction of black pixels: the background of the digits. The page is white."""
            canvas = max(page.elements("canvas"), key=lambda canvas: canvas.rect["width"])
            pixels = np.asarray(Image.open(io.BytesIO(canvas.screenshot_as_png)).convert("L"))
            return float((pixels < 8).mean())

        page.wait(lambda: digits() > 0.1)
    finally:
        browser.switch_to.default_content()


def test_runs_are_sorted_by_test_accuracy(tensorboard: str, runs: list[Path], browser: Any) -> None:
    accuracy = {}
    for run in runs:
        results = json.loads((run / "results.json").read_text())
        accuracy[f"{run.parent.name}/{run.name}"] = results["test"]["accuracy"]
    by_accuracy = sorted(accuracy, key=lambda name: accuracy[name])
    page = Page(browser, f"{tensorboard}/#hparams")
    page.wait(lambda: page.shows(*accuracy, "test.curves/accuracy", "Descending"))
    assert [name for name in page.texts() if name in ("model", "batch_size", "seed")][0] == "model"  # it differs
    for direction, expected in (("Ascending", by_accuracy), ("Descending", by_accuracy[::-1])):
        for choice in ("test.curves/accuracy", direction):
            item = next(item for item in page.elements("paper-item") if text(item) == choice)  # the first menu sorts
            browser.execute_script("arguments[0].click()", item)  # in a menu that is closed
        page.wait(lambda expected=expected: rows(page, expected) == expected)


def rows(page: Page, names: list[str]) -> list[str]:
    """Return the names in the table, from top to bottom."""
    cells = [cell for cell in page.elements("vaadin-grid-cell-content") if text(cell) in names]
    return [text(cell) for cell in sorted(cells, key=lambda cell: cell.rect["y"])]


def text(element: Any) -> str:
    return element.get_property("textContent").strip()
