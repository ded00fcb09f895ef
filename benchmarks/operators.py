"""Milliseconds of each operator in a training step: `python -m benchmarks.operators lenet5|cnn`, on one core.

In the environment of Keras, `python benchmarks/operators.py lenet5|cnn` measures those of the published program.
"""

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

STEPS, WARM_UP, BATCH = 60, 20, 128
NAME = sys.argv[1]


def torch_operators() -> Counter[str]:
    import torch
    from torch.profiler import profile

    from benchmarks.contenders import NETWORKS, forward
    from src.system.memory import keep_freed_pages

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    keep_freed_pages()
    model = NETWORKS[NAME]().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True)
    images, labels = torch.randint(256, (BATCH, 28, 28), dtype=torch.uint8), torch.randint(10, (BATCH,))
    sums = torch.zeros(2)

    def steps(number: int) -> None:
        for _ in range(number):
            optimizer.zero_grad()
            (forward(model, images, labels, sums) / BATCH).backward()
            optimizer.step()

    steps(WARM_UP)
    started = time.perf_counter()
    steps(STEPS)
    print(f"{(time.perf_counter() - started) / STEPS * 1e3:8.2f} ms a step, not profiled")
    with profile() as profiled:
        steps(STEPS)
    return Counter({event.key: event.self_cpu_time_total / 1e3 for event in profiled.key_averages()})


def keras_operators() -> Counter[str]:
    import numpy as np
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    sys.argv = ["", NAME, "data", "1"]  # trains one epoch, and leaves its model behind
    here = Path(__file__).parent
    sys.path.insert(0, str(here))
    program: dict[str, Any] = {"__name__": "keras_program"}
    exec(compile((here / "keras_program.py").read_text(), "keras_program.py", "exec"), program)
    model = program["model"]
    x, y = np.random.rand(BATCH * STEPS, 28, 28, 1), np.eye(10)[np.random.randint(10, size=BATCH * STEPS)]
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        model.fit(x, y, BATCH, 1, verbose=2)
        tf.profiler.experimental.stop()
        [file] = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    milliseconds: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                milliseconds[plane.event_metadata[event.metadata_id].name] += event.duration_ps / 1e9
    return milliseconds


if __name__ == "__main__":
    os.sched_setaffinity(0, {0})
    operators = torch_operators() if __package__ else keras_operators()
    for operator, milliseconds in operators.most_common(40):
        print(f"{milliseconds / STEPS:8.2f} {operator}")
