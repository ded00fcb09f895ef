"""What the networks cost: operations, memory, and time."""

import numpy as np

from src.comparison.result import Comparison, Network
from src.evaluation.cost import median_and_range, size, time_inference
from src.report.section import Numbers, Section


class Cost(Section):
    """Adds multiply-adds, bytes and times."""

    def of_network(self, network: Network) -> Numbers:
        results = network.results
        epochs = [list(result["curves"].get("epoch_seconds", {}).get("train", {}).values()) for result in results]
        per_epoch = np.concatenate(epochs) if all(epochs) else [run["train_seconds"] / run["epochs"] for run in results]
        return {
            "cost": size(network.trained),
            "train_seconds": median_and_range([result["train_seconds"] for result in results]),
            "epoch_seconds": float(np.median(per_epoch)),
        }

    def of_report(self, comparison: Comparison) -> Numbers:
        return {"timings": time_inference({network.name: network.trained for network in comparison.networks})}
