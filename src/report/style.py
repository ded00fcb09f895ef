"""How the figures and the page of a report look, in light and dark."""

from typing import Any

from cycler import cycler

# Okabe and Ito's colours, which colour-blind readers can tell apart. Each network also has its own marker.
COLOURS = {
    "light": ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#555555"],
    "dark": ["#56B4E9", "#E69F00", "#2FC79A", "#CC79A7", "#F0E442", "#BBBBBB"],
}
INK = {"light": "#1a1a1a", "dark": "#e8e8e8"}
PAPER = {"light": "#ffffff", "dark": "#16181c"}
WIDTH = 5.6  # inches: readable at the width of a phone


def of_network(number: int) -> dict[str, Any]:
    """Return colour and marker of a network."""
    return {"color": f"C{number % 6}", "marker": "osD^vP"[number % 6]}


def rc_params(theme: str) -> Any:
    """Return matplotlib's settings for "light" or "dark"."""
    paper = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
    return {
        **dict.fromkeys(paper, PAPER[theme]),
        **dict.fromkeys(ink, INK[theme]),
        "text.parse_math": False,
        "font.size": 10,
        "axes.titlesize": 11,
        "grid.alpha": 0.15,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.framealpha": 0.8,
        "axes.prop_cycle": cycler(color=COLOURS[theme]),
        "figure.constrained_layout.use": True,
    }
