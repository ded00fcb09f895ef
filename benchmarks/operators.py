"""Where the time of a training step on the CPU goes: `python -m benchmarks.operators lenet5|cnn`.

Prints each operator's share of the time, and for those that multiply their multiply-adds a second over
those of a large matrix product that takes turns with them. The profiler keeps small blocks of memory between
the large ones, so that a large buffer is taken anew in each step and pays for its pages: `aten::fill_`, the
zeros of CNN's max-pooling, reads too high.
"""

import argparse
from collections import Counter

import torch
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import BATCH, NETWORKS, forward
from src.system.memory import keep_freed_pages

STEPS, WARM_UP, SIZE = 50, 5, 2048
PRODUCT = "aten::bmm"  # which no network here uses
# What the profiler calls an operator, and the counter of multiply-adds.
MULTIPLY = {
    "aten::mkldnn_convolution": "aten.convolution",
    "aten::convolution_backward": "aten.convolution_backward",
    "aten::addmm": "aten.addmm",
    "aten::mm": "aten.mm",
}


def main(network: str) -> None:
    keep_freed_pages()
    model = NETWORKS[network]().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
    images, labels = torch.randint(256, (BATCH, 28, 28), dtype=torch.uint8), torch.randint(10, (BATCH,))
    sums = torch.zeros(2)
    a, b = torch.randn(2, 1, SIZE, SIZE)

    def step() -> None:
        optimizer.zero_grad()
        (forward(model, images, labels, sums) / BATCH).backward()
        optimizer.step()

    for _ in range(WARM_UP):
        step()
    with FlopCounterMode(display=False) as counter:
        step()
    counts = {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}
    with profile() as profiled:
        for _ in range(STEPS):
            step()
            torch.bmm(a, b)
    seconds = Counter({event.key: event.self_cpu_time_total / 1e6 for event in profiled.key_averages()})
    product_rate = 2 * SIZE**3 * STEPS / seconds.pop(PRODUCT)
    for operator, its_seconds in seconds.most_common(10):
        rate = counts.get(MULTIPLY.get(operator, ""), 0) * STEPS / its_seconds / product_rate
        share = f"{operator:32} {its_seconds / seconds.total():5.1%} of the step"
        print(share + (f", multiplies at {rate:.0%} of the rate of the product" if rate else ""))
    flops = sum(counts.values()) * STEPS
    print(f"{'All':32}       multiplies at {flops / seconds.total() / product_rate:.0%} of the rate of the product")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], prog="python -m benchmarks.operators")
    parser.add_argument("network", choices=NETWORKS)
    main(parser.parse_args().network)
