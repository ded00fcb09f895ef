"""The report of a comparison: its numbers, and report.html, report.json and the figures made of them."""

import base64
import io
import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context

from src.comparison.result import Comparison
from src.comparison.words import duration, mean_sd, ranking, table
from src.report.section import Numbers
from src.report.sections import SECTIONS
from src.report.style import INK, PAPER, rc_params
from src.system.files import write_whole


def collect_numbers(comparison: Comparison) -> Numbers:
    """Return everything that report.json holds: what all sections contribute."""
    report: Numbers = {
        "images": len(comparison.labels_N),
        "classes": comparison.classes,
        "margin": comparison.margin,
        "ranking": ranking(comparison.pairs) if len(comparison.networks) > 2 else None,
        "notes": comparison.notes,
        "networks": [{"name": network.name} for network in comparison.networks],
        "pairs": [{} for _ in comparison.pairs],
    }
    for section in SECTIONS.values():
        for numbers, network in zip(report["networks"], comparison.networks, strict=True):
            numbers |= section.of_network(network)
        for numbers, pair in zip(report["pairs"], comparison.pairs, strict=True):
            numbers |= section.of_pair(pair, comparison)
        report |= section.of_report(comparison)
    return report


def write_report(report: Numbers, comparison: Comparison) -> Path:
    """Write all files into the comparison's folder, each whole or not at all. The same numbers give the same files.

    Returns:
        The path of report.html.
    """
    folder = comparison.folder
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {theme: _draw_figures(report, comparison, theme) for theme in ("light", "dark")}
    for name, png in pictures["light"].items():
        write_whole(folder / f"{name}.png", png)
    write_whole(folder / "report.json", f"{json.dumps(report, indent=1, ensure_ascii=False)}\n".encode())
    # Names, paths and settings come from runs, so all text is escaped.
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"number": _number, "mean_sd": mean_sd, "duration": duration}
    sources = {
        theme: {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in drawn.items()}
        for theme, drawn in pictures.items()
    }
    template = environment.get_template("report.html.jinja")
    page = template.render(**report, pictures=sources, ink=INK, paper=PAPER, sections=list(SECTIONS))
    write_whole(folder / "report.html", page.encode())
    return folder / "report.html"


def summarise(report: Numbers) -> str:
    """Return what is left out, the main table, the verdicts and the notes, for a terminal."""
    left_out = "\n".join(f"Left out: {folder}: {reason}" for folder, reason in report["left_out"].items())
    verdicts = ["\n".join(pair["words"]) for pair in report["pairs"]]
    parts = [left_out, _table(report), report["ranking"], *verdicts, *report["notes"]]
    return "\n\n".join(filter(None, parts))


def _table(report: Numbers) -> str:
    networks = report["networks"]
    latencies = [report["timings"][network["name"]]["latency_microseconds"]["median"] for network in networks]
    columns = {
        "network": [network["name"] for network in networks],
        "parameters": [f"{network['parameters']:,}" for network in networks],
        "epochs": [str(network["epochs"]) for network in networks],
        "runs": [str(len(network["runs"])) for network in networks],
        f"errors in {report['images']:,}": [mean_sd(network["errors"], 1) for network in networks],
        "training": [duration(network["train_seconds"]["median"]) for network in networks],
        "latency": [f"{latency:.0f} µs" for latency in latencies],
    }
    return table(columns)


def _draw_figures(report: Numbers, comparison: Comparison, theme: str) -> dict[str, bytes]:
    """Draw every figure as PNG, by its name."""
    drawn = {}
    with rc_context(rc_params(theme)):
        for section in SECTIONS.values():
            for name, draw in section.figures().items():
                png = io.BytesIO()
                draw(report, comparison).savefig(png, format="png", dpi=160)
                drawn[name] = png.getvalue()
    return drawn


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")
