"""report.html, report.json and the pictures of a comparison."""

import base64
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from src.report.figures import INK, PAPER, draw_all
from src.system.files import replace_when_whole

THEMES = ("light", "dark")


def write_report(report: dict[str, Any], images_NHW: Tensor, folder: Path) -> Path:
    """Write everything into `folder`, each file whole or not at all. The same numbers give the same files.

    Args:
        report: Every number.
        images_NHW: The test images, uint8.
        folder: Made where it is missing.

    Returns:
        The path of report.html.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {theme: draw_all(report, images_NHW, theme) for theme in THEMES}
    for name, png in pictures["light"].items():
        _write(folder / f"{name}.png", png)
    _write(folder / "report.json", f"{json.dumps(report, indent=1, ensure_ascii=False)}\n".encode())
    # Names, paths and settings come from runs: all text is escaped.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {"number": _number, "mean_sd": _mean_sd, "duration": _duration}
    sources = {
        theme: {name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in drawn.items()}
        for theme, drawn in pictures.items()
    }
    page = environment.get_template("report.html.jinja").render(**report, pictures=sources, ink=INK, paper=PAPER)
    _write(folder / "report.html", page.encode())
    return folder / "report.html"


def table(report: dict[str, Any]) -> str:
    """The main table, as text for a terminal."""
    rows = [["network", "parameters", "epochs", "runs", f"errors in {report['images']:,}", "training", "latency"]]
    for network in report["networks"]:
        latency = report["timings"][network["name"]]["latency_microseconds"]["median"]
        rows.append(
            [
                network["name"],
                f"{network['parameters']:,}",
                str(network["epochs"]),
                str(len(network["runs"])),
                _mean_sd(network["errors"], 1),
                _duration(network["train_seconds"]["median"]),
                f"{latency:.0f} µs",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _write(path: Path, content: bytes) -> None:
    with replace_when_whole(path) as file:
        file.write(content)


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}".replace("-", "−")


def _mean_sd(summary: dict[str, Any], digits: int, factor: float = 1) -> str:
    mean = f"{factor * summary['mean']:,.{digits}f}"
    return mean if summary["sd"] is None else f"{mean} ± {factor * summary['sd']:,.{digits}f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
