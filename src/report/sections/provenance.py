"""How the comparison was made: runs, settings, machines, versions, and the command."""

import platform
import shlex
from importlib.metadata import version

from src.comparison.result import Comparison, Network
from src.report.section import Numbers, Section


class Provenance(Section):
    """Adds settings, machines, versions and the command."""

    def of_network(self, network: Network) -> Numbers:
        return {"settings": network.recipe}

    def of_report(self, comparison: Comparison) -> Numbers:
        packages = [f"{package} {version(package)}" for package in ("torch", "torchvision", "scipy")]
        results = [result for network in comparison.networks for result in network.results]
        machines = [", ".join(f"{key} {value}" for key, value in one.get("machine", {}).items()) for one in results]
        made = {
            "number_of_runs": comparison.number_of_runs,
            "machines": list(dict.fromkeys(machines)),
            "versions": ", ".join([f"Python {platform.python_version()}", *packages]),
            "command": shlex.join(comparison.command),
        }
        return {"left_out": {str(folder): reason for folder, reason in comparison.left_out.items()}, "made": made}
