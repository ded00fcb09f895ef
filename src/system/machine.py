"""The hardware and software that a training runs on."""

import os
import platform
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning
import torch

from src.system.memory import keep_freed_pages

CPU_FEATURES = {
    "AVX-512": ("avx512f",),
    "bfloat16": ("avx512_bf16", "amx_bf16"),
    "AMX": ("amx_tile",),
}  # flags of Linux


def describe_machine(device: torch.device, devices: int = 1) -> dict[str, Any]:
    """Return the device, the number of devices, the number of CPU threads, and versions, by name."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "devices": devices,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }


def speed_up_cpu() -> None:
    """Change settings of this process that cost time on the CPU. Call it before torch starts threads."""
    keep_freed_pages()
    # Treats numbers below 1.2e-38 as zero, if the CPU can. Computing with them is slow. Where a gradient stays zero
    # (dead units), Adam's running means shrink until rounding stops them at such numbers (see docs/speed.md).
    # Threads inherit this setting from the thread that starts them.
    torch.set_flush_denormal(True)
    if not torch.cuda.is_available():
        # Lightning makes torch ask the driver's library whether CUDA is available, and Adam asks in each step. Without
        # a driver, torch then searches the file system for its library each time: 0.05 ms.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def tensorboard_command(logdir: str | Path) -> str:
    """The command line that shows the runs in `logdir`, with the TensorBoard of this environment."""
    return _command("tensorboard", "--host", "localhost", "--logdir", str(logdir))


def install_command(extra: str) -> str:
    """The command line that adds the packages of an extra of pyproject.toml to this environment."""
    return _command("pip", "install", "-c", "constraints.txt", "-e", f".[{extra}]")


def cpu_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _command(program: str, *args: str) -> str:
    """The command line of a program of this environment. It works in environments that are not activated, too."""
    path = str(Path(sys.executable).with_name(program))
    with suppress(ValueError):  # on Windows, there is no relative path to another drive
        path = min(path, os.path.relpath(path), key=len)
    return shlex.join([path, *args])


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The name of the processor, and which instructions for large vectors and matrices it has.

    With family and model, where they are known: a virtual machine may hide a part of the name.
    """
    # On Linux platform.processor() is empty.
    lines = cpuinfo.read_text().partition("\n\n")[0].splitlines() if cpuinfo.exists() else []
    about = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "flags" not in about:
        return about.get("model name", platform.machine())
    flags = about["flags"].split()
    found = [name for name, names in CPU_FEATURES.items() if not {*names}.isdisjoint(flags)]
    model = f"family {about['cpu family']}, model {about['model']}"
    return f"{about['model name']} ({model}) with {', '.join(found) or 'no AVX-512'}"
