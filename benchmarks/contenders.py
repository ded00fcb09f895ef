"""Those that are timed against each other: `python -m benchmarks.contenders NAME NETWORK`.

A block is a short epoch: 50 training steps of 128 images and validation on 10 batches, with loss and accuracy of both,
and with all else that the contender does in an epoch. The environment variable TIMES makes it longer. All use the GPU,
if they see one.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

from benchmarks.turns import Turns
from src.cli.main import main
from src.data import MNISTDataModule
from src.models import CNN, LeNet5

TIMES = int(os.environ.get("TIMES", 1))  # as many steps in a block
BATCH, TRAIN_STEPS, VAL_STEPS = 128, 50 * TIMES, 10 * TIMES
NETWORKS: dict[str, type[LeNet5 | CNN]] = {"lenet5": LeNet5, "cnn": CNN}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LIMITS: dict[str, Any] = {"limit_train_batches": TRAIN_STEPS, "limit_val_batches": VAL_STEPS}
LIMITS |= {"devices": 1, "max_epochs": 1_000_000}  # the driver ends it


class DeviceTurns(Turns):
    """Waits for a GPU, reports its memory, and measures how long it, or the CPU, computes in a block to be profiled."""

    def __init__(self) -> None:
        super().__init__(torch.cuda.synchronize if DEVICE == "cuda" else lambda: None)
        self.profile: profile | None = None

    def next(self, **more: float) -> str:
        if DEVICE == "cuda":
            more["peak GPU memory"] = torch.cuda.max_memory_allocated()
        if self.profile is not None:
            self.wait()
            self.profile.stop()
            of_all = self.profile.key_averages()
            times = (one.self_device_time_total if DEVICE == "cuda" else one.self_cpu_time_total for one in of_all)
            more["device time"] = sum(times) / 1e6
            self.profile = None
        order = super().next(**more)
        if order == "profile":
            self.profile = profile(activities=[getattr(ProfilerActivity, DEVICE.upper())])
            self.profile.start()
        return order


class Block(Callback):
    """Makes each epoch of a Trainer one block: validation, logging and checkpoint are in it."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.turns = DeviceTurns()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.turns.next()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.turns.end_of_steps()


def fit(network: str, *args: str) -> None:
    """What a user of this package runs."""
    limits = [f"--trainer.{name}={value}" for name, value in LIMITS.items()]
    with tempfile.TemporaryDirectory() as folder:
        block = ["--trainer.callbacks+=benchmarks.contenders.Block", f"--trainer.default_root_dir={folder}"]
        main(["fit", f"--config=configs/{network}.yaml", *limits, *block, *args])


def usual(network: str) -> None:
    """Lightning as most people write it: torchvision's data set, a DataLoader, `self.log` in each step."""
    transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])
    MNISTDataModule().prepare_data()
    train = DataLoader(MNIST("data", train=True, transform=transform), BATCH, shuffle=True)
    val = DataLoader(MNIST("data", train=False, transform=transform), BATCH)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(default_root_dir=folder, callbacks=[Block()], num_sanity_val_steps=0, **LIMITS)
        trainer.fit(UsualModule(network), train, val)


class UsualModule(LightningModule):
    """Both networks in the usual order of layers."""

    def __init__(self, network: str) -> None:
        super().__init__()
        lenet5 = [
            *(nn.Conv2d(1, 6, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 120, 5, padding="same"), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(5880, 84), nn.ReLU(), nn.Linear(84, 10)),
        ]
        cnn = [
            *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)),
            *(nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
        ]
        self.network = nn.Sequential(*{"lenet5": lenet5, "cnn": cnn}[network])
        self.train_accuracy = MulticlassAccuracy(10, average="micro")
        self.val_accuracy = MulticlassAccuracy(10, average="micro")

    def _step(self, stage: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        accuracy = self.train_accuracy if stage == "train" else self.val_accuracy
        accuracy(logits, labels)
        settings: dict[str, Any] = {"on_step": stage == "train", "on_epoch": True, "prog_bar": True}
        self.log(f"{stage}_loss", loss, **settings)
        self.log(f"{stage}_accuracy", accuracy, **settings)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self._step("train", batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._step("val", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


Step = Callable[[Tensor], None]


def in_graph(step: Step) -> Step:
    """A step whose kernels a GPU starts by itself. A CPU has no such graphs, so there it is the step itself."""
    if DEVICE == "cpu":
        return step
    index_N = torch.arange(BATCH, device=DEVICE)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):  # torch makes its buffers
            step(index_N)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(index_N)

    def replay(new_N: Tensor) -> None:
        index_N.copy_(new_N)
        graph.replay()

    return replay


def graph(network: str) -> None:
    """The hand-written loop with each training step as a CUDA graph."""
    hand_written(network, in_graph)


def compiled(network: str) -> None:
    """The hand-written loop with a compiled network, whose parts are CUDA graphs."""
    hand_written(network, compile_network=True)


def hand_written(
    network: str, capture: Callable[[Step], Step] = lambda step: step, compile_network: bool = False
) -> None:
    """The loop that one would write without Lightning, over the same tensors in memory."""
    data = MNISTDataModule()
    data.prepare_data()
    data.setup("fit")
    train_images, train_labels = (part.to(DEVICE) for part in data.train)
    val_images, val_labels = (part.to(DEVICE) for part in data.val)
    model = NETWORKS[network]().to(DEVICE, memory_format=torch.channels_last)
    on_gpu = DEVICE == "cuda"
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-7, fused=True, capturable=on_gpu)
    if compile_network:
        model.compile(mode="reduce-overhead")
    sums = torch.zeros(2, 2, device=DEVICE)

    def training_step(index_N: Tensor) -> None:
        loss = forward(model, train_images[index_N], train_labels[index_N], sums[0])
        optimizer.zero_grad()
        (loss / BATCH).backward()
        optimizer.step()

    step_in_turn = capture(training_step)
    turns = DeviceTurns()
    while True:
        turns.next()
        order_N = torch.randperm(len(train_labels), device=DEVICE)
        sums.zero_()
        model.train()
        for step in range(TRAIN_STEPS):
            step_in_turn(order_N[step * BATCH : (step + 1) * BATCH])
        turns.end_of_steps()
        model.eval()
        with torch.inference_mode():
            for step in range(VAL_STEPS):
                batch = slice(step * BATCH, (step + 1) * BATCH)
                forward(model, val_images[batch], val_labels[batch], sums[1])
        sums.tolist()


def forward(model: nn.Module, images_NHW: Tensor, labels_N: Tensor, sums: Tensor) -> Tensor:
    x_NCHW = images_NHW.unsqueeze(1).float().div_(255).sub_(0.1307).div_(0.3081)
    logits_NK = model(x_NCHW)
    loss = F.cross_entropy(logits_NK, labels_N, reduction="sum")
    sums += torch.stack([loss.detach(), (logits_NK.argmax(1) == labels_N).sum()])
    return loss


if __name__ == "__main__":
    contenders: list[Callable[..., None]] = [fit, hand_written, usual, graph, compiled]
    {one.__name__: one for one in contenders}[sys.argv[1]](*sys.argv[2:])
