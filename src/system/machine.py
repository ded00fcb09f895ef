"""The hardware and software that a training runs on."""

import ctypes
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning
import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # from glibc's malloc.h


def describe_machine(device: torch.device, devices: int = 1) -> dict[str, Any]:
    """Return the device, the number of devices, the number of CPU threads, and versions, by name."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
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
    # (dead units), Adam's running means shrink until rounding stops them at such numbers (`benchmarks/denormals.py`).
    # Threads inherit this setting from the thread that starts them.
    torch.set_flush_denormal(True)
    if not torch.cuda.is_available():
        # Lightning makes torch ask the driver's library whether CUDA is available, and Adam asks in each step. Without
        # a driver, torch then searches the file system for its library each time: 0.05 ms.
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


def keep_freed_pages() -> None:
    """Make glibc keep up to 2 GB of freed memory instead of returning it to the system.

    Each training step allocates the same large blocks again. If the system provides them, each page costs
    a page fault: 2,400 per step of LeNet5 on the CPU, or 13 % of its time. Without glibc this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_TOP_PAD, 2**28)
    mallopt(M_MMAP_THRESHOLD, 2**25)  # the largest value that glibc accepts


def tensorboard_command(logdir: str | Path) -> str:
    """The command line that shows the runs in `logdir`, with the TensorBoard of this environment."""
    program = str(Path(sys.executable).with_name("tensorboard"))
    with suppress(ValueError):  # on Windows, there is no relative path to another drive
        program = os.path.relpath(program)
    return f"{program} --host localhost --logdir {logdir}"


def cpu_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # on Linux platform.processor() is empty
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
