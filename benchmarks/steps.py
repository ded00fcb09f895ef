"""CPU time of a training step with augmentation, and with another dropout: `python -m benchmarks.steps`.

The variants take turns in one process and on one thread, so other load on the machine changes little. Takes about
three minutes.
"""

import time
from collections.abc import Iterator
from itertools import cycle

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from src.data import MNISTDataModule
from src.models import CNN, Classifier, LeNet5
from src.models.dropout import Dropout

ROUNDS, STEPS = 30, 10
AUGMENTED = {"max_shift": 2, "max_rotation": 10.0, "max_scaling": 0.1, "max_shear": 10.0, "elastic": 0.5}


def steps(network: Classifier, averaged: bool = False, **settings) -> Iterator[None]:
    """Train without end; one step at a time."""
    data = MNISTDataModule(**settings)
    data.prepare_data()
    data.setup("fit")
    network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn()) if averaged else None
    for batch in cycle(iter(data.train_dataloader())):
        loss = network.training_step(data.on_after_batch_transfer(batch, 0), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(network)
        yield


def compare(title: str, *trainings: Iterator[None]) -> None:
    """Print the median ratio of the CPU times of steps of two trainings."""
    times = np.zeros((ROUNDS, 2))
    for training in trainings:
        for _ in range(STEPS):
            next(training)
    for round_ in range(ROUNDS):
        for number in (0, 1) if round_ % 2 else (1, 0):
            start = time.process_time()
            for _ in range(STEPS):
                next(trainings[number])
            times[round_, number] = time.process_time() - start
    ratios = times[:, 0] / times[:, 1]
    low, high = bootstrap((ratios,), np.median, rng=0).confidence_interval
    print(f"{title}: {np.median(ratios):.3f} ({low:.3f} to {high:.3f})", flush=True)


def with_torch_dropout() -> Classifier:
    network = CNN()
    for name, layer in network.network.named_children():
        if isinstance(layer, Dropout):
            setattr(network.network, name, nn.Dropout(layer.p))
    return network


def main() -> None:
    torch.set_num_threads(1)
    everything = "shift, affine and elastic distortion, label smoothing and averaged weights"
    for network in (LeNet5, CNN):
        name = network.__name__
        compare(f"{name}, elastic distortion / plain", steps(network(), elastic=0.5), steps(network()))
        augmented = steps(network(label_smoothing=0.1), averaged=True, **AUGMENTED)
        compare(f"{name}, {everything} / plain", augmented, steps(network()))
    compare("CNN, dropout of this package / of torch", steps(CNN()), steps(with_torch_dropout()))


if __name__ == "__main__":
    main()
