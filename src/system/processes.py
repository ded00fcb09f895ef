"""Communication between the processes that share one training or prediction, and how they were started."""

import os
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import Tensor

from src.system.errors import UserError

T = TypeVar("T")
TIMEOUT = timedelta(minutes=5)  # torch's is 30


def cluster_environment() -> ClusterEnvironment:
    """What has launched this process: torchrun, SLURM's srun, or Lightning and the user.

    Lightning's own requeue of SLURM jobs is off, because it hangs with several processes. `Stopping` saves the run on
    SLURM's signal instead.
    """
    try:
        if TorchElasticEnvironment.detect():  # also inside a SLURM job
            return TorchElasticEnvironment()
        if SLURMEnvironment.detect():
            environment = SLURMEnvironment(auto_requeue=False)
            environment.global_rank()
            return environment
    except (RuntimeError, KeyError) as error:
        raise UserError(f"The variables of SLURM do not fit a training, start it with srun: {error}") from None
    return LightningEnvironment()


def limit_waiting() -> None:
    """Make processes wait at most five minutes for each other, if the strategy is DDP by name."""
    for name in StrategyRegistry:
        if StrategyRegistry[name]["strategy"] is DDPStrategy:
            StrategyRegistry[name]["init_params"]["timeout"] = TIMEOUT


def refuse_other_processes(trainer: Trainer) -> None:
    """Raise a `UserError` if the environment says another number of processes than the Trainer.

    `LOCAL_RANK` makes Lightning expect that somebody else starts the processes, so that it would wait for ever for
    those that nobody starts. A Trainer with one device ignores `WORLD_SIZE`, so each process would train a run.
    """
    names = [name for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE") if name in os.environ]
    n_devices, n_processes = trainer.num_devices, trainer.num_devices * trainer.num_nodes
    is_alone = isinstance(cluster_environment(), LightningEnvironment)
    if trainer.num_nodes > 1 and is_alone and not {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys():
        several = f"--trainer.num_nodes {trainer.num_nodes}"
        raise UserError(f"{several} needs torchrun, srun, or MASTER_ADDR, MASTER_PORT and NODE_RANK.")
    try:
        started = int(os.environ.get("WORLD_SIZE", 1))
        fits = int(os.environ.get("RANK", 0)) < started and int(os.environ.get("LOCAL_RANK", 0)) < n_devices
    except ValueError:
        started, fits = 0, False
    if names and not (fits and started == n_processes):
        variables = ", ".join(f"{name}={os.environ[name]}" for name in names)
        raise UserError(
            f"The environment has {variables}, but --trainer.devices {n_devices} and --trainer.num_nodes "
            f"{trainer.num_nodes} make {n_processes} processes. Unset these variables, or change the options."
        )


def gather(value: T) -> list[T]:
    """Collect one value from each process, in the order of the ranks.

    Collective: it waits for the values of the other processes, so every process must call it.
    """
    if not dist.is_initialized():
        return [value]
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def gather_shares(shares: list[Tensor], interleaved: bool = False) -> Tensor:
    """Join what the devices computed for their shares of the batches. Collective, see `gather`.

    Args:
        shares: (n, …) for each batch: one row for each image in the share of this device.
        interleaved: Whether device r of W has the images r, r + W, … as with Lightning's samplers. Else it has a
            contiguous share of each batch.

    Returns:
        (N, …), in the order of the images.
    """
    gathered = gather(shares)
    if not any(gathered):
        return torch.empty(0, 2)  # two columns, for the answer and the runner-up
    if not interleaved:
        return torch.cat([share for batch in zip(*gathered, strict=True) for share in batch])
    of_ranks = [torch.cat(shares) for shares in gathered if shares]
    joined = of_ranks[0].new_empty(sum(map(len, of_ranks)), *of_ranks[0].shape[1:])
    for rank, rows in enumerate(of_ranks):
        joined[rank :: len(of_ranks)] = rows
    return joined


def pick_by_rank(values: list[T]) -> list[T]:
    """Choose, from values that `gather` collected before a restart, those that this process takes over.

    With the same number of processes this is the value of its rank. With fewer it may be several, with more none.
    """
    if not dist.is_initialized():
        return values
    return values[dist.get_rank() :: dist.get_world_size()]
