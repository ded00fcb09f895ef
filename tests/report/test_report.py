"""The report as a whole: all sections, figures, and what happens to unusual runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from src.comparison.result import Comparison
from src.comparison.statistics import BETTER
from src.models import CNN
from src.report.page import FIGURES, collect_numbers, write_report
from tests.comparison.made_up import compared, contender
from tests.report.conftest import LABELS, runs_with

N_FIGURES = 8


def escaped(text: str) -> str:
    return text.replace("'", "&#39;")


def strict_json(path: Path) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_three_networks_get_three_verdicts_and_all_figures(comparison: Comparison, tmp_path: Path) -> None:
    third = contender("Third", CNN(), LABELS, runs_with((90, 91), seed=3))
    comparison = compared([third, *comparison.contenders], folder=tmp_path)
    page = write_report(comparison).read_text()
    numbers = strict_json(tmp_path / "report.json")
    assert [network["name"] for network in numbers["networks"]] == ["CNN", "LeNet5", "Third"]
    verdicts = {(pair["a"], pair["b"]): pair["verdict"] for pair in numbers["pairs"]}
    assert verdicts.keys() == {("CNN", "LeNet5"), ("CNN", "Third"), ("LeNet5", "Third")}
    assert verdicts["LeNet5", "Third"] == BETTER  # 44 ± 4 errors against 90 and 91
    assert all(len(image["answers"]) == 3 for image in numbers["hardest"])
    assert "<h1>3 networks in the order of their errors</h1>" in page
    for pair in numbers["pairs"]:
        assert f"<td>{pair['a']} minus {pair['b']}, mean errors</td>" in page
        assert f"<h3>{escaped(pair['verdict_sentences'][0])}</h3>" in page
    assert page.count("<img") == len(list(tmp_path.glob("*.png"))) == N_FIGURES
    assert "Robustness" not in page


def test_robustness_has_a_section_if_the_runs_were_tested_on_corrupted_images(
    comparison: Comparison, tmp_path: Path
) -> None:
    contenders = [contender(name, CNN(), LABELS, runs_with((40, 44), seed=0)) for name in ("One", "Other")]
    for network in contenders:
        network.robustness_SCL = np.full((2, 8, 5), 0.1)
    page = write_report(compared(contenders, folder=tmp_path)).read_text()
    assert "<h2>Robustness</h2>" in page
    assert page.count("<img") == N_FIGURES + 1


@pytest.mark.parametrize("n_runs", [1, 2])
def test_thirty_networks(tmp_path: Path, n_runs: int) -> None:
    cnn, random = CNN(), np.random.default_rng(0)
    contenders = [
        contender(f"N{number}", cnn, LABELS, runs_with(random.integers(20, 90, n_runs).tolist(), seed=number))
        for number in range(30)
    ]
    comparison = compared(contenders, folder=tmp_path)
    page = write_report(comparison).read_text()
    numbers = strict_json(tmp_path / "report.json")
    assert len(numbers["networks"]) == 30 and len(numbers["pairs"]) == 29
    assert page.count("<h3>") == 29
    assert all(f"<td>N{number}</td>" in page for number in range(30))
    assert len(page) < 5_000_000


def test_a_class_without_test_images_and_a_loss_that_is_no_number(tmp_path: Path) -> None:
    labels_N = LABELS % 9  # there is no 9
    probabilities_SNK = runs_with((40, 44), seed=0)
    contenders = [contender(name, CNN(), labels_N, probabilities_SNK) for name in ("One", "Other")]
    contenders[0].runs[1].results["curves"]["loss"] = {"train": {"1": None}, "validation": {"1": float("nan")}}
    comparison = compared(contenders, folder=tmp_path)
    page = write_report(comparison).read_text()
    assert "There are no test images of 9, so the accuracy is not known." in page
    one, other = strict_json(tmp_path / "report.json")["networks"]
    assert one["digits"][9] == {"mean": None, "sd": None, "low": None, "high": None}
    assert one["digits"][8]["mean"] is not None
    assert one["curves"]["loss"]["validation"]["mean"] == [None]
    assert other["curves"]["loss"]["validation"]["mean"] == [pytest.approx(0.9795)]


def draw_only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The other figures are empty, because each takes a tenth of a second."""
    for name in FIGURES.keys() - set(names):
        monkeypatch.setitem(FIGURES, name, lambda *args: Figure(figsize=(1, 1)))


def test_picture_and_table_of_five_networks_are_the_first_that_one_sees(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_only(monkeypatch, "errors")
    sizes = {"LeNet5": (40, 48, 44), "CNN": (30, 36, 31), "MyNet": (80, 91, 95), "CNN (lr 0.002)": (33, 34, 39)}
    contenders = [
        contender(name, CNN(), LABELS, runs_with(errors, seed))
        for seed, (name, errors) in enumerate((sizes | {"LeNet5 (batch_size 64, lr 0.002)": (41, 50, 60)}).items())
    ]
    for run in (run for network in contenders for run in network.runs):
        run.results.update(parameters=1_199_882, train_seconds=602.0)
    page = write_report(compared(contenders, folder=tmp_path))
    screen = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(page.as_uri())
    title, picture, table = (browser.find_element("css selector", name) for name in ("h1", "img", ".table"))
    for element in (title, picture, table):
        assert element.rect["y"] >= 0 and element.rect["y"] + element.rect["height"] <= 800
    assert picture.rect["width"] > 500 and picture.get_attribute("alt").startswith("errors of every run")
    assert all(name in table.text for name in ("CNN (lr 0.002)", "MyNet"))
    cut_off = "return arguments[0].scrollWidth - arguments[0].clientWidth"
    assert browser.execute_script(cut_off, table) <= 0
    pairs = browser.find_elements("css selector", "h3")
    assert len(pairs) == 10 and all(pair.rect["y"] > 800 for pair in pairs)


def test_the_title_of_two_networks_is_their_verdict(
    numbers: dict[str, Any], comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_only(monkeypatch)
    page = write_report(compared(comparison.contenders, folder=tmp_path)).read_text()
    assert f"<h1>{escaped(numbers['pairs'][0]['verdict_sentences'][0])}</h1>" in page


@pytest.mark.parametrize("validated", [(), (2, 4)])
def test_runs_without_validation_in_all_epochs(
    tmp_path: Path, validated: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_only(monkeypatch, "accuracy", "loss")
    settings = {"data.val_size": 0}
    contenders = [
        contender(name, CNN(), LABELS, runs_with(errors, 0), settings, (0.5, 0.9, 0.95, 0.98))
        for name, errors in (("One", (40, 44)), ("Other", (50, 54)))
    ]
    for run in contenders[0].runs:
        for curves in run.results["curves"].values():
            curves["validation"] = {str(epoch): 0.9 for epoch in validated}
    comparison = compared(contenders, folder=tmp_path)
    numbers = collect_numbers(comparison)
    one, other = numbers["networks"]
    assert one["curves"]["accuracy"]["validation"]["epoch"] == list(validated)
    assert (one["last_epochs"], numbers["pairs"][0]["last_epochs"]) == (None, None)
    assert other["last_epochs"] is not None
    page = write_report(comparison).read_text()
    assert "Not validated on the whole test set after each epoch: One." in page
