"""The sections of the report. To add one, write ``<name>.py`` and ``<name>.html.jinja`` here, and name it below."""

from src.report.section import Section
from src.report.sections import confidence, cost, curves, difference, errors, provenance, robustness

SECTIONS: dict[str, Section] = {  # in the order of the page
    "difference": difference.Difference(),
    "errors": errors.Errors(),
    "curves": curves.Curves(),
    "robustness": robustness.Robustness(),
    "cost": cost.Cost(),
    "confidence": confidence.Confidence(),
    "provenance": provenance.Provenance(),
}
