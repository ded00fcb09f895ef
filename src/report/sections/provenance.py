"""How the comparison was made: runs, settings, machines, versions, and the command."""

import platform
import shlex
from importlib.metadata import version

from src.comparison.result import Comparison
from src.report.sections import Numbers


def of_comparison(comparison: Comparison) -> Numbers:
    """Return machines, versions, the command, and how the number of runs was fixed."""
    packages = [f"{package} {version(package)}" for package in ("torch", "torchvision", "scipy")]
    machines = [
        ", ".join(f"{key} {value}" for key, value in result.get("machine", {}).items())
        for contender in comparison.contenders
        for result in contender.results
    ]
    return {
        "number_of_runs": comparison.number_of_runs,
        "machines": list(dict.fromkeys(filter(None, machines))),
        "versions": ", ".join([f"Python {platform.python_version()}", *packages]),
        "command": shlex.join(comparison.command),
    }
