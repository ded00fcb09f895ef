"""The files of a report: its numbers as report.json, the figures, and report.html, which shows both."""

import base64
import io
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context

from src.comparison.result import Comparison
from src.comparison.sentences import ONLY_THE_BEST, duration, mean_sd
from src.report.section import Numbers
from src.report.sections import SECTIONS
from src.report.style import SHOWN, STYLE
from src.system.files import write_json, write_whole


def write_report(comparison: Comparison) -> Path:
    """Write all files into the comparison's folder, each whole or not at all.

    Returns:
        The path of report.html.
    """
    folder = comparison.folder
    folder.mkdir(parents=True, exist_ok=True)
    numbers = collect_numbers(comparison)
    write_json(folder / "report.json", numbers)
    figures = draw_figures(numbers, comparison)
    for name, png in figures.items():
        write_whole(folder / f"{name}.png", png)
    page = render(numbers, figures, all_pairs=comparison.shows_all_pairs)
    write_whole(folder / "report.html", page.encode(errors="replace"))  # a path may be no text
    return folder / "report.html"


def collect_numbers(comparison: Comparison) -> Numbers:
    """Return everything that report.json holds: what all sections contribute."""
    numbers: Numbers = {
        "images": len(comparison.labels_N),
        "classes": comparison.classes,
        "margin": comparison.margin,
        "notes": comparison.notes,
        "networks": [{"name": contender.name} for contender in comparison.contenders],
        "pairs": [{} for _ in comparison.pairs],
    }
    for section in SECTIONS.values():
        for of_network, contender in zip(numbers["networks"], comparison.contenders, strict=True):
            of_network |= section.of_contender(contender)
        for of_pair, pair in zip(numbers["pairs"], comparison.pairs, strict=True):
            of_pair |= section.of_pair(pair, comparison)
        numbers |= section.of_comparison(comparison)
    return numbers


def draw_figures(numbers: Numbers, comparison: Comparison) -> dict[str, bytes]:
    """Draw every figure as PNG, by its name."""
    drawn = {}
    with rc_context(STYLE):
        for section in SECTIONS.values():
            for name, draw in section.figures(numbers).items():
                png = io.BytesIO()
                draw(numbers, comparison).savefig(png, format="png", dpi=160)
                drawn[name] = png.getvalue()
    return drawn


def render(numbers: Numbers, figures: dict[str, bytes], all_pairs: bool) -> str:
    """Return the page. Names, paths and settings come from runs, so all text is escaped."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"number": _number, "mean_sd": mean_sd, "duration": duration}
    sources = {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in figures.items()}
    return environment.get_template("page.html.jinja").render(
        **numbers, figures=sources, sections=list(SECTIONS), pairs_note="" if all_pairs else ONLY_THE_BEST, shown=SHOWN
    )


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")
