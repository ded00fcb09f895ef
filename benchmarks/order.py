# mypy: ignore-errors
"""ReLU after flatten instead of before it: same weights, and the CPU time of both orders in turn. On one thread."""

import statistics
import sys
import time
from collections import OrderedDict

import torch

from benchmarks.contenders import BATCH, NETWORKS, forward
from src.system.memory import keep_freed_pages

torch.set_flush_denormal(True)
keep_freed_pages()
n = sys.argv[1]
orders = {
    "lenet5": [
        "conv1",
        "pool1",
        "relu1",
        "conv2",
        "pool2",
        "relu2",
        "conv3",
        "flatten",
        "relu3",
        "dense1",
        "relu4",
        "dense2",
    ],
    "cnn": ["conv1", "relu1", "conv2", "pool", "dropout1", "flatten", "relu2", "dense1", "relu3", "dropout2", "dense2"],
}
torch.manual_seed(0)
a = NETWORKS[n]().to(memory_format=torch.channels_last)
torch.manual_seed(0)
b = NETWORKS[n]()
b.network = torch.nn.Sequential(OrderedDict((k, getattr(b.network, k)) for k in orders[n]))
b = b.to(memory_format=torch.channels_last)
images, labels = torch.randint(256, (BATCH, 28, 28), dtype=torch.uint8), torch.randint(10, (BATCH,))
sums = torch.zeros(2)
opts = {m: torch.optim.Adam(m.parameters(), lr=1e-3, eps=1e-7, fused=True) for m in (a, b)}


def step(m):
    opts[m].zero_grad()
    (forward(m, images, labels, sums) / BATCH).backward()
    opts[m].step()


for m in (a, b):
    torch.manual_seed(1)
    for _ in range(5):
        step(m)
print("same bits", all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True)))
r = []
for _ in range(12):
    t = []
    for m in (a, b):
        s = time.process_time()
        for _ in range(20 if n == "lenet5" else 6):
            step(m)
        t.append(time.process_time() - s)
    r.append(t[1] / t[0])
print(n, "new/old", statistics.median(r), min(r), max(r))
