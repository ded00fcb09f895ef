"""How the comparison was made: runs, settings, machines, versions, and the command."""

import platform
import shlex
from importlib.metadata import version

from src.comparison.result import Comparison, Contender
from src.report.section import Numbers, Section


class Provenance(Section):
    """Adds settings, machines, versions and the command."""

    def of_contender(self, contender: Contender) -> Numbers:
        return {"settings": contender.recipe}

    def of_comparison(self, comparison: Comparison) -> Numbers:
        packages = [f"{package} {version(package)}" for package in ("torch", "torchvision", "scipy")]
        results = [result for contender in comparison.contenders for result in contender.results]
        machines = [", ".join(f"{key} {value}" for key, value in one.get("machine", {}).items()) for one in results]
        made = {
            "number_of_runs": comparison.number_of_runs,
            "machines": list(dict.fromkeys(filter(None, machines))),
            "versions": ", ".join([f"Python {platform.python_version()}", *packages]),
            "command": shlex.join(comparison.command),
        }
        return {"left_out": {str(folder): why for folder, why in comparison.left_out.items()}, "made": made}
