"""Communication between the processes that share one training or prediction."""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from torch import Tensor

from src.system.errors import UserError

T = TypeVar("T")
TIMEOUT = 300  # seconds in which all processes must have started


class StartingTogether:
    """Lets the processes of torchrun, srun or several nodes agree before they form their process group.

    A process that ended with an error before the process group exists would leave the others waiting. So each process
    publishes in a store at the main address whether it goes on. If one ends with an error, all end with it.
    Processes started by Lightning on the same machine take no part: their parent has agreed for them.

    Attributes:
        num_nodes: Number of nodes, which Lightning's own launcher needs to know.
    """

    def __init__(self) -> None:
        self.environment = cluster_environment()
        self.num_nodes = 1
        self._exchanges = 0

    @property
    def size(self) -> int:
        """The number of processes that take part."""
        if self.environment.creates_processes_externally:
            return 1 if isinstance(self.environment, LightningEnvironment) else self.environment.world_size()
        return self.num_nodes

    @property
    def rank(self) -> int:
        """The number of this process among them."""
        if isinstance(self.environment, LightningEnvironment):
            return self.environment.node_rank() if self.size > 1 else 0
        return self.environment.global_rank()

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Publish an error that ends this process. The others raise it in `share`."""
        try:
            yield
        except (SharedError, SharedExit):
            raise
        except SystemExit as error:
            self._exchange({"error": "its command line is not valid", "code": error.code})
            raise
        except Exception as error:
            self._exchange({"error": str(error) or type(error).__name__, "code": 1})
            raise

    def share(self, value: str) -> list[str]:
        """Return the values of all processes, in the order of the ranks.

        Raises:
            SharedError: Another process has ended with an error, did not start, or cannot be reached.
            SharedExit: Another process has ended without an error.
        """
        outcomes = self._exchange({"value": value})
        for rank, outcome in enumerate(outcomes):
            if "error" in outcome:
                if outcome["code"] == 0:
                    raise SharedExit(0)
                raise SharedError(f"Process {rank} on {outcome['node']} has ended: {outcome['error']}")
        return [outcome["value"] for outcome in outcomes]

    def _exchange(self, outcome: dict[str, Any]) -> list[dict[str, Any]]:
        if self.size == 1:
            return [outcome]
        self._exchanges += 1
        prefix = f"start/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{self._exchanges}"
        outcomes, read = ([f"{prefix}/{kind}/{rank}" for rank in range(self.size)] for kind in ("outcome", "read"))
        try:
            self._store.set(outcomes[self.rank], json.dumps(outcome | {"node": platform.node()}))
            self._wait_for(outcomes)
            values = [json.loads(self._store.get(key)) for key in outcomes]
        except RuntimeError as error:
            address = f"{self.environment.main_address}:{self.environment.main_port}"
            reason = str(error).splitlines()[0]
            raise SharedError(f"Process {self.rank} cannot reach process 0 at {address}: {reason}") from None
        with suppress(RuntimeError):  # the process with the store leaves last, but all have read it then
            self._store.set(read[self.rank], "")
            self._wait_for(read)
        return values

    def _wait_for(self, keys: list[str]) -> None:
        """Wait in Python, where a signal can interrupt it."""
        deadline = time.monotonic() + TIMEOUT
        while not self._store.check(keys):
            if time.monotonic() > deadline:
                late = ", ".join(str(rank) for rank, key in enumerate(keys) if not self._store.check([key]))
                raise SharedError(
                    f"Process {late} of {len(keys)} did not start within {TIMEOUT} seconds. "
                    "Start all processes, with torchrun or srun."
                )
            time.sleep(0.05)

    @cached_property
    def _store(self) -> dist.TCPStore:
        """A store that torchrun provides, or that process 0 hosts and shares with the process group of Lightning."""
        if isinstance(self.environment, LightningEnvironment) and "MASTER_PORT" not in os.environ:
            raise SharedError(
                f"--trainer.num_nodes {self.num_nodes} needs torchrun, srun, or MASTER_ADDR, MASTER_PORT and NODE_RANK."
            )
        hosted_by_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return dist.TCPStore(
            self.environment.main_address,
            self.environment.main_port,
            is_master=self.rank == 0 and not hosted_by_torchrun,
            timeout=timedelta(seconds=TIMEOUT),
            multi_tenant=True,
        )


class SharedError(UserError):
    """An error that all processes know of."""


class SharedExit(SystemExit):
    """An end without an error that all processes know of."""


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


def gather(value: T) -> list[T]:
    """Collect one value from each process, in the order of the ranks.

    Collective: it waits for the values of the other processes, so every process must call it.
    """
    if not dist.is_initialized():
        return [value]
    values = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def gather_shares(shares: list[Tensor]) -> Tensor:
    """Join what the devices computed for their shares of the batches. Collective, see `gather`.

    Args:
        shares: (n, K) for each batch: one row for each image in the share of this device.

    Returns:
        (N, K), in the order of the images.
    """
    in_order = [share for batch in zip(*gather(shares), strict=True) for share in batch]
    return torch.cat(in_order) if in_order else torch.empty(0, 10)


def pick_by_rank(values: list[T]) -> list[T]:
    """Choose, from values that `gather` collected before a restart, those that this process takes over.

    With the same number of processes this is the value of its rank. With fewer it may be several, with more none.
    """
    if not dist.is_initialized():
        return values
    return values[dist.get_rank() :: dist.get_world_size()]
