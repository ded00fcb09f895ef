"""A picture of what networks saw and said."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from src.system.files import replace_when_whole


def draw_contact_sheet(images: list[Tensor], rows: list[dict[str, Any]], path: Path) -> None:
    """Draw each image as the networks got it, with the end of its file's name and their answers.

    Args:
        images: (28, 28) uint8 each, at least one.
        rows: For each image its `file` and `answers`: network → `digit` and `confidence`.
        path: The file; its suffix is the format.
    """
    columns = min(8, len(rows))
    lines = -(-len(rows) // columns)
    networks = list(rows[0]["answers"])
    height = 1.6 + 0.17 * len(networks)  # inches of a cell
    figure = Figure(figsize=(1.5 * max(columns, 3), height * lines + 0.2 * len(networks) + 0.2), layout="constrained")
    for number, (image_HW, row) in enumerate(zip(images, rows, strict=True), start=1):
        axes = figure.add_subplot(lines, columns, number)
        axes.imshow(image_HW.numpy(), cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
        name = row["file"] if len(row["file"]) <= 18 else f"…{row['file'][-17:]}"
        axes.set_title(name, fontsize=7, parse_math=False)
        for place, answer in enumerate(row["answers"].values()):
            text = f"{answer['digit']}  {answer['confidence']:.1%}"
            axes.text(14, 31 + 4 * place, text, color=f"C{place % 10}", fontsize=9, ha="center", va="center")
    squares = [Patch(color=f"C{place % 10}", label=name) for place, name in enumerate(networks)]
    figure.legend(handles=squares, loc="outside lower left", fontsize=8, frameon=False)
    with replace_when_whole(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=100)
