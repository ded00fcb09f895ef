"""What the networks cost: multiply-adds, bytes, and time."""

import statistics
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from src.comparison.result import Contender
from src.models import Classifier
from src.report.sections import Numbers

IMAGES_AT_ONCE = 128
ROUNDS = 5
REPEATS = 50  # of one image, in a round


def of_contender(contender: Contender, shape: tuple[int, ...]) -> Numbers:
    """Return the size of the network for images of a shape, and the times of its trainings."""
    results = contender.results
    epochs = [list(result["curves"].get("epoch_seconds", {}).get("train", {}).values()) for result in results]
    per_epoch = np.concatenate(epochs) if all(epochs) else [run["train_seconds"] / run["epochs"] for run in results]
    return {
        "cost": size(contender.trained, shape),
        "train_seconds": median_and_range([result["train_seconds"] for result in results]),
        "epoch_seconds": float(np.median(per_epoch)),
    }


def size(network: LightningModule, shape: tuple[int, ...] = (1, 28, 28)) -> dict[str, int]:
    """Return the multiply-adds of one image, and the bytes of the float32 weights."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, *shape))
    return {
        "multiply_adds": counter.get_total_flops() // 2,
        "weight_bytes": 4 * sum(parameter.numel() for parameter in network.parameters()),
    }


def time_inference(networks: dict[str, LightningModule], shape: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Measure the latency of one image on one thread, and the images per second in batches on all threads.

    The networks take turns, so that other load on the machine affects all of them.
    """
    threads = torch.get_num_threads()
    measured: dict[str, Any] = {name: {"latency_microseconds": [], "images_per_second": []} for name in networks}
    for _ in range(ROUNDS):
        for name, network in networks.items():
            measured[name]["latency_microseconds"].append(1e6 * _seconds(network, shape, 1, num_threads=1))
            seconds = _seconds(network, shape, IMAGES_AT_ONCE, num_threads=threads)
            measured[name]["images_per_second"].append(IMAGES_AT_ONCE / seconds)
    return {
        name: {quantity: median_and_range(values) for quantity, values in rounds.items()} | {"threads": threads}
        for name, rounds in measured.items()
    }


def median_and_range(values: list[float]) -> dict[str, float]:
    """Return the median, the lowest and the highest value."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _seconds(network: LightningModule, shape: tuple[int, ...], n_images: int, num_threads: int) -> float:
    x_NCHW = torch.zeros(n_images, *shape)
    if isinstance(network, Classifier) and network.channels_last:
        x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        timer = Timer("network(x)", globals={"network": network, "x": x_NCHW}, num_threads=num_threads)
        return float(timer.timeit(max(3, REPEATS // n_images)).median)
