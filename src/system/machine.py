"""What a training runs on."""

import platform
from pathlib import Path
from typing import Any

import lightning
import torch


def describe_machine(device: torch.device, devices: int = 1) -> dict[str, Any]:
    """Device, number of devices, threads and versions, by name."""
    return {
        "device": _device_name(device),
        "devices": devices,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # platform.processor() is empty on Linux
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
