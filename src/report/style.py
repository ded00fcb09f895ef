"""How the figures of a report look: dark on white, which a dark page shows as cards."""

from typing import Any

from cycler import cycler

# Okabe and Ito's colours, which colour-blind readers can tell apart. Each network also has its own marker.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#555555"]
SHOWN = len(COLOURS)  # networks that a figure can tell apart: of more, those with the fewest errors
WIDTH = 5.6  # inches: readable at the width of a phone
STYLE: Any = {
    "text.parse_math": False,
    "font.size": 10,
    "axes.titlesize": 11,
    "grid.alpha": 0.4,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.framealpha": 0.8,
    "axes.prop_cycle": cycler(color=COLOURS),
    "figure.constrained_layout.use": True,
}


def of_network(number: int) -> dict[str, Any]:
    """Return colour and marker of a network."""
    return {"color": f"C{number % SHOWN}", "marker": "osD^vP"[number % SHOWN]}
