"""What keeps two processes from being twice as fast as one: `python -m benchmarks.two_processes lenet5|cnn`.

Hand-written training steps of 128 images, without Lightning, on the CPU with one thread each, in turns: on one
process; on two that share the images but exchange nothing; on two that average their gradients (DDP over Gloo).
Prints how much faster than the first the others are.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from contextlib import nullcontext

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.contenders import BATCH, NETWORKS, forward
from src.system.memory import keep_freed_pages

ROUNDS, STEPS = 12, 30
ONE, SHARING, AVERAGING = "one process", "two, nothing exchanged", "two, gradients averaged"


def work(rank: int, network: str, meeting_point: str) -> None:
    keep_freed_pages()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=2)
    model = DistributedDataParallel(NETWORKS[network]().to(memory_format=torch.channels_last))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
    images, labels = torch.randint(256, (BATCH, 28, 28), dtype=torch.uint8), torch.randint(10, (BATCH,))
    sums = torch.zeros(2)

    def block(name: str) -> float:
        share = BATCH if name == ONE else BATCH // 2
        dist.barrier()
        started = time.perf_counter()
        for _ in range(STEPS if rank == 0 or name != ONE else 0):
            with nullcontext() if name == AVERAGING else model.no_sync():
                loss = forward(model, images[:share], labels[:share], sums)
                optimizer.zero_grad()
                (loss / share).backward()
                optimizer.step()
        dist.barrier()
        return time.perf_counter() - started

    seconds = defaultdict(list)
    for number in range(ROUNDS + 1):
        for name in (ONE, SHARING, AVERAGING):
            took = block(name)
            if number:  # the first round warms up
                seconds[name].append(took)
    if rank == 0:
        for name in (SHARING, AVERAGING):
            print(f"{name}: {np.median(np.divide(seconds[ONE], seconds[name])):.2f} times as fast as {ONE}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], prog="python -m benchmarks.two_processes")
    parser.add_argument("network", choices=NETWORKS)
    network = parser.parse_args().network
    with tempfile.TemporaryDirectory() as folder:
        spawn(work, (network, f"{folder}/meeting_point"), nprocs=2)
