"""The report as a whole: all sections, pictures, and the text for the terminal."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from src.comparison import statistics
from src.comparison.result import Comparison
from src.comparison.statistics import BETTER
from src.models import CNN
from src.report.report import collect_numbers, summarise, write_report
from src.report.sections import SECTIONS
from tests.comparison.made_up import compared, network
from tests.report.conftest import LABELS, runs_with


def test_three_networks_get_a_ranking_three_verdicts_and_all_pictures(comparison: Comparison, tmp_path: Path) -> None:
    third = network("Third", CNN(), LABELS, runs_with((90, 91), seed=3))
    comparison = compared([*comparison.networks, third], folder=tmp_path)
    report = collect_numbers(comparison)
    verdicts = {(pair["a"], pair["b"]): pair["verdict"] for pair in report["pairs"]}
    assert verdicts.keys() == {("LeNet5", "CNN"), ("LeNet5", "Third"), ("CNN", "Third")}
    assert verdicts["LeNet5", "Third"] == BETTER  # 44 ± 4 errors against 90 and 91
    assert {len(group["networks"]) for group in report["always_wrong"]} == {1, 2, 3}
    assert all(len(image["answers"]) == 3 for image in report["hardest"])
    page = write_report(report, comparison).read_text()
    assert page.count("<h1") == 1
    assert "Third" in report["ranking"]
    assert f">{escaped(report['ranking'])}</h1>" in page
    for pair in report["pairs"]:
        assert f"<td>{pair['a']} minus {pair['b']}, mean errors</td>" in page
        assert f"<h3>{escaped(pair['words'][0])}</h3>" in page
    assert page.count("<picture>") == len(list(tmp_path.glob("*.png"))) == 9
    text = summarise(report)
    assert text.index(report["ranking"]) < min(text.index(pair["words"][0]) for pair in report["pairs"])


def draw_only(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """The other figures are empty, because each takes a tenth of a second."""
    for section in SECTIONS.values():
        figures = {name: draw if name in names else empty for name, draw in section.figures().items()}
        monkeypatch.setattr(section, "figures", lambda figures=figures: figures)


def test_ranking_picture_and_table_of_five_networks_are_the_first_that_one_sees(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_only(monkeypatch, "errors")
    monkeypatch.setattr(statistics, "smallest_difference", lambda *args: 20.0)
    monkeypatch.setattr(statistics, "runs_needed", lambda *args: 30)
    sizes = {"LeNet5": (40, 48, 44), "CNN": (30, 36, 31), "MyNet": (80, 91, 95), "CNN (lr 0.002)": (33, 34, 39)}
    networks = [
        network(name, CNN(), LABELS, runs_with(errors, seed))
        for seed, (name, errors) in enumerate((sizes | {"LeNet5 (batch_size 64, lr 0.002)": (41, 50, 60)}).items())
    ]
    for run in (run for one in networks for run in one.runs):
        run.results.update(parameters=1_199_882, train_seconds=602.0)
    comparison = compared(networks, folder=tmp_path)
    page = write_report(collect_numbers(comparison), comparison)
    screen = {"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(page.as_uri())
    ranking, picture, table = (browser.find_element("css selector", name) for name in ("h1", "img", ".table"))
    for element in (ranking, picture, table):
        assert element.rect["y"] >= 0 and element.rect["y"] + element.rect["height"] <= 800
    assert picture.rect["width"] > 500 and picture.get_attribute("alt").startswith("errors of every run")
    assert all(name in table.text for name in ("CNN (lr 0.002)", "MyNet"))
    cut_off = "return arguments[0].scrollWidth - arguments[0].clientWidth"
    assert browser.execute_script(cut_off, table) <= 0
    pairs = browser.find_elements("css selector", "h3")
    assert len(pairs) == 10 and all(pair.rect["y"] > 800 for pair in pairs)


def empty(*args: Any) -> Figure:
    """A figure that is drawn in no time."""
    return Figure(figsize=(1, 1))


def escaped(text: str) -> str:
    return text.replace("'", "&#39;")


def test_two_networks_get_no_ranking(
    report: dict[str, Any], comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report["ranking"] is None
    names = [name for section in SECTIONS.values() for name in section.figures()]
    monkeypatch.setattr("src.report.report._draw_figures", lambda *args: dict.fromkeys(names, b""))
    comparison = compared(comparison.networks, folder=tmp_path)
    page = write_report(report, comparison).read_text()
    assert f"<h1>{escaped(report['pairs'][0]['words'][0])}</h1>" in page


def test_each_section_has_its_own_names(comparison: Comparison) -> None:
    """So none overwrites the numbers or pictures of another."""
    for contributions in (
        [section.of_network(comparison.networks[0]) for section in SECTIONS.values()],
        [section.of_pair(comparison.pairs[0], comparison) for section in SECTIONS.values()],
        [section.of_report(comparison) for section in SECTIONS.values()],
        [section.figures() for section in SECTIONS.values()],
    ):
        names = [name for contribution in contributions for name in contribution]
        assert len(names) == len(set(names)) > 0


@pytest.mark.parametrize("validated", [(), (2, 4)])
def test_runs_without_validation_in_all_epochs(
    tmp_path: Path, validated: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_only(monkeypatch, "accuracy", "loss")
    settings = {"data.val_size": 0}
    networks = [
        network(name, CNN(), LABELS, runs_with((40, 44), seed), settings, (0.5, 0.9, 0.95, 0.98))
        for seed, name in enumerate(("One", "Other"))
    ]
    for run in networks[0].runs:
        for curves in run.results["curves"].values():
            curves["validation"] = {str(epoch): 0.9 for epoch in validated}
    comparison = compared(networks, folder=tmp_path)
    report = collect_numbers(comparison)
    assert report["networks"][0]["curves"]["accuracy"]["validation"]["epoch"] == list(validated)
    assert (report["networks"][0]["last_epochs"], report["pairs"][0]["last_epochs"]) == (None, None)
    assert report["networks"][1]["last_epochs"] is not None
    page = write_report(report, comparison).read_text()
    assert "One was not validated on the whole test set after each epoch." in page
