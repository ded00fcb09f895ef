"""What a network costs: multiply-adds, bytes, and time."""

from typing import Any

import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from src.models import Classifier

ONE_IMAGE = (1, 1, 28, 28)
IMAGES_AT_ONCE = 1000
ROUNDS = 7  # in each of which the networks are timed one after the other


def size(network: Classifier) -> dict[str, int]:
    """Multiply-adds of one image, and bytes of the float32 weights."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(ONE_IMAGE))
    return {
        "multiply_adds": counter.get_total_flops() // 2,
        "weight_bytes": 4 * sum(parameter.numel() for parameter in network.parameters()),
    }


def time_inference(networks: dict[str, Classifier]) -> dict[str, dict[str, Any]]:
    """Latency of one image on one thread, and images a second in batches on all threads.

    Networks are timed in turn, so that what else the machine does falls on all alike.
    """
    threads = torch.get_num_threads()
    latency: dict[str, list[float]] = {name: [] for name in networks}
    throughput: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(ROUNDS):
        for name, network in networks.items():
            latency[name].append(1e6 * _seconds(network, torch.zeros(ONE_IMAGE), num_threads=1))
            seconds = _seconds(network, torch.zeros(IMAGES_AT_ONCE, *ONE_IMAGE[1:]), num_threads=threads)
            throughput[name].append(IMAGES_AT_ONCE / seconds)
    return {
        name: {
            "latency_microseconds": _median_and_range(latency[name]),
            "images_per_second": _median_and_range(throughput[name]),
            "threads": threads,
        }
        for name in networks
    }


def _seconds(network: Classifier, x_NCHW: torch.Tensor, num_threads: int) -> float:
    x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        timer = Timer("network(x)", globals={"network": network, "x": x_NCHW}, num_threads=num_threads)
        return float(timer.blocked_autorange(min_run_time=0.2).median)


def _median_and_range(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"median": ordered[len(ordered) // 2], "low": ordered[0], "high": ordered[-1]}
