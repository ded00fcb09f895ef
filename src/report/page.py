"""The files of a report: its numbers as report.json, the figures, and report.html, which shows both."""

import base64
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.figure import Figure

from src.comparison.corruptions import choose_images
from src.comparison.result import Comparison
from src.comparison.sentences import ONLY_THE_BEST, duration, mean_sd
from src.report.sections import Numbers, confidence, cost, curves, difference, errors, provenance, robustness
from src.report.style import SHOWN, STYLE
from src.system.files import write_json, write_whole

SECTIONS = ("difference", "errors", "curves", "robustness", "cost", "confidence", "provenance")  # as on the page
FIGURES: dict[str, Callable[[Numbers, Comparison], Figure]] = {
    "errors": difference.draw_errors,
    "difference": difference.draw_difference,
    "confusion": errors.draw_confusion,
    "digits": errors.draw_classes,
    "hardest": errors.draw_hardest,
    "accuracy": partial(curves.draw, metric="accuracy"),
    "loss": partial(curves.draw, metric="loss"),
    "robustness": robustness.draw,
    "reliability": confidence.draw,
}


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
    """Return everything that report.json holds."""
    contenders, classes = comparison.contenders, comparison.classes
    networks = [
        {"name": contender.name, "settings": contender.recipe, "robustness": robustness.of_contender(contender)}
        | difference.of_contender(contender)
        | errors.of_contender(contender)
        | curves.of_contender(contender)
        | cost.of_contender(contender, comparison.shape)
        | confidence.of_contender(contender)
        for contender in contenders
    ]
    pairs = [
        difference.of_pair(pair, len(contenders)) | {"last_epochs": last_epochs}
        for pair, last_epochs in zip(comparison.pairs, curves.of_pairs(comparison), strict=True)
    ]
    return {
        "images": len(comparison.labels_N),
        "classes": classes,
        "without_images": [name for label, name in enumerate(classes) if label not in comparison.labels_N],
        "margin": comparison.margin,
        "notes": comparison.notes,
        "networks": networks,
        "pairs": pairs,
        "always_wrong": errors.always_wrong(contenders),
        "hardest": errors.hardest_images(comparison),
        "robustness_images": len(choose_images(torch.from_numpy(comparison.labels_N))),
        "timings": cost.time_inference({one.name: one.trained for one in contenders}, comparison.shape),
        "left_out": {str(folder): problem for folder, problem in comparison.left_out.items()},
        "made": provenance.of_comparison(comparison),
    }


def draw_figures(numbers: Numbers, comparison: Comparison) -> dict[str, bytes]:
    """Draw every figure as PNG, by its name."""
    drawn = {}
    with rc_context(STYLE):
        for name, draw in FIGURES.items():
            if name == "robustness" and not numbers["networks"][0]["robustness"]:
                continue
            if name == "hardest" and comparison.images_NHW is None:
                continue
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
        **numbers, figures=sources, sections=SECTIONS, pairs_note="" if all_pairs else ONLY_THE_BEST, shown=SHOWN
    )


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")
