"""Loss and accuracy of each epoch, measured beside the network."""

import sys
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DistributedSampler

from src.data import GlobalBatches, names_of_classes
from src.system.errors import UserError
from src.system.processes import gather, gather_shares, pick_by_rank
from src.tensorboard.logger import RunLogger
from src.training.metrics import EpochMetrics

SUB_RUNS = {"train": "train", "val": "validation", "test": "test"}


class Measuring(Callback):
    """Measures what `forward` returns in each step, on all devices, each image once.

    So nothing that a network overrides, logs or names can change the curves and the results. The values become
    ``train_loss``, ``val_accuracy`` and so on, for other callbacks to monitor; where the network logs a value of the
    same name, they monitor that of the network. Values of an epoch go to all loggers.

    Attributes:
        metrics: For "train", "val" and "test", the sums of the current or newest epoch.
        newest: For the same stages, the values of the newest epoch that has ended. The same on all devices.
        test_logits_NK: The logits of all test images in their order, float32 on the CPU, after a test.
        test_labels_N: Their labels, after a test.
        shape: Of one test image, as the network gets it.
        classes: Their names, after a test.
    """

    test_labels_N: Tensor
    shape: tuple[int, ...]
    classes: list[str]

    def __init__(self) -> None:
        self.metrics = {stage: EpochMetrics() for stage in SUB_RUNS}
        self.newest: dict[str, dict[str, Tensor]] = {}
        self.test_logits_NK: Tensor | None = None
        self._logits_NK: Tensor | None = None  # of the current step
        self._shares: list[tuple[Tensor, Tensor]] = []  # logits and labels of each test batch
        self._is_evaluating = False
        self._n_own = 0  # images of an evaluation that are not repeats for this process, and not measured yet
        self._loaded: list[dict[str, Any]] = []  # the sums of each process inside an epoch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for metrics in self.metrics.values():
            metrics.to(trainer.strategy.root_device)
        pl_module.is_measured = True  # type: ignore[assignment]  # a `Classifier` then logs nothing
        self._hook = pl_module.register_forward_hook(self._keep)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._hook.remove()

    def _keep(self, network: Any, args: Any, output: Any) -> None:
        # The first call in a step: under DDP, Lightning then calls the network itself, to get what the step returns.
        # In a training, calls without gradients are not those of the step.
        is_step = self._logits_NK is None and (torch.is_grad_enabled() or self._is_evaluating)
        if is_step and isinstance(output, Tensor) and output.ndim == 2:
            self._logits_NK = output

    def on_train_batch_start(self, *_: Any) -> None:
        self._logits_NK = None  # of a call between two steps

    def on_validation_batch_start(self, *_: Any) -> None:
        self._logits_NK = None

    def on_test_batch_start(self, *_: Any) -> None:
        self._logits_NK = None

    def _measure(self, stage: str, batch: Any) -> tuple[Tensor, Tensor] | None:
        """Add a step to the sums, and return its logits and labels. None if it did not call `forward`."""
        if self._logits_NK is None:
            return None
        logits_NK, self._logits_NK = self._logits_NK, None
        labels_N = batch[1]
        if stage != "train" and len(labels_N) > self._n_own:
            logits_NK, labels_N = logits_NK[: self._n_own], labels_N[: self._n_own]
        self._n_own -= len(labels_N)
        self.metrics[stage].update(logits_NK, labels_N)
        return logits_NK, labels_N

    def _start(self, stage: str, trainer: Trainer, loader: Any) -> None:
        """Start an evaluation. Images that Lightning's sampler repeats to give each process as many don't count."""
        self._is_evaluating = True
        self.metrics[stage].reset()
        sampler, self._n_own = getattr(loader, "sampler", None), sys.maxsize
        if isinstance(sampler, DistributedSampler):
            self._n_own = len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))  # type: ignore[arg-type]
        elif trainer.world_size > 1 and not isinstance(loader, GlobalBatches):
            rank_zero_warn(f"Lightning doesn't divide these {stage} images among the processes: some may count twice.")

    def _end(self, stage: str, trainer: Trainer) -> None:
        """Reduce the sums over the devices, and pass the values of the epoch to callbacks and loggers."""
        self._is_evaluating = False
        self.metrics[stage].flush()
        values = self.metrics[stage].compute()
        if not values["images"]:
            rank_zero_warn(f"No {stage} step calls forward, so there are no {stage}_loss and {stage}_accuracy.")
            return
        self.newest[stage] = values
        epoch = trainer.current_epoch + (stage != "test")  # the test follows the last epoch
        named = {name: value for name, value in values.items() if value.is_floating_point()}
        log_epoch(trainer, stage, {name: value.item() for name, value in named.items()}, epoch, f"{stage}_")

    def result(self, stage: str) -> dict[str, float]:
        """The values of the newest epoch of "val" or "test". Raises a `UserError` if there are none."""
        if stage not in self.newest:
            raise UserError(f"The {stage} steps of the network never call forward, so nothing was measured.")
        return {name: value.item() for name, value in self.newest[stage].items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for state in pick_by_rank(self._loaded):
            self.metrics["train"].merge_state(move_data_to_device(state, self.metrics["train"].device))
        self._loaded = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.metrics["train"].reset()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._measure("train", batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end("train", trainer)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("val", trainer, trainer.val_dataloaders)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self._measure("val", batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._end("val", trainer)
        self._is_evaluating = False

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start("test", trainer, trainer.test_dataloaders)
        self._shares = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.shape = tuple(batch[0].shape[1:]) if isinstance(batch[0], Tensor) else ()
        if (measured := self._measure("test", batch)) is not None:
            self._shares.append(measured)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end("test", trainer)
        if not self._shares:
            self.test_logits_NK = None
            return
        is_interleaved = not isinstance(trainer.test_dataloaders, GlobalBatches)
        logits, labels = zip(*self._shares, strict=True)
        self.test_logits_NK = gather_shares([share.float().cpu() for share in logits], is_interleaved)
        self.test_labels_N = gather_shares([share.cpu() for share in labels], is_interleaved)
        self.classes = names_of_classes(trainer.datamodule, self.test_logits_NK.shape[1])  # type: ignore[attr-defined]

    # A checkpoint inside an epoch keeps the sums of the steps so far.

    def state_dict(self) -> dict[str, Any]:
        self.metrics["train"].flush()
        state = move_data_to_device(self.metrics["train"].metric_state, torch.device("cpu"))
        return {"train": gather(state)}  # Lightning calls this hook in every process

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["train"]


def measuring_of(trainer: Trainer) -> Measuring:
    """The Measuring of a Trainer."""
    return next(one for one in trainer.callbacks if isinstance(one, Measuring))  # type: ignore[attr-defined]


def log_epoch(trainer: Trainer, stage: str, values: dict[str, float], epoch: int, prefix: str = "") -> None:
    """Pass values of an epoch to callbacks, which may monitor them, and to all loggers.

    Args:
        trainer: Has callbacks and loggers.
        stage: "train", "val" or "test".
        values: By their names in the curves.
        epoch: Counted from 1.
        prefix: Of their names elsewhere.
    """
    named = {f"{prefix}{name}": value for name, value in values.items()}
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in named.items()})
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger):
            logger.log_epoch(SUB_RUNS[stage], values, epoch)
        elif trainer.is_global_zero:
            logger.log_metrics(named | {"epoch": epoch}, step=trainer.global_step)
