"""What the processes of a training agree on before they form their process group."""

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from src.system import processes
from src.system.errors import UserError
from src.system.processes import StartingTogether, cluster_environment
from tests.conftest import Refused
from tests.training.test_distributed import free_port

SLURM = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (SLURM | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}).items():
        monkeypatch.setenv(name, value)


def test_the_environment_of_slurm_has_no_requeue(slurm: None) -> None:
    environment = cluster_environment()
    assert isinstance(environment, SLURMEnvironment) and not environment.auto_requeue


def test_torchrun_inside_slurm_comes_first(slurm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert isinstance(cluster_environment(), TorchElasticEnvironment)


@pytest.mark.parametrize("variable", ["SLURM_PROCID", "SLURM_NTASKS_PER_NODE"])
def test_incomplete_variables_of_slurm_are_one_line(
    refused: Refused, slurm: None, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv(variable)
    assert "error: The variables of SLURM do not fit" in refused("fit", "--model=LeNet5")


def test_a_process_that_does_not_start_is_named(slurm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TIMEOUT", 0.2)
    with pytest.raises(UserError, match="Process 1 of 2 did not start within 0.2 seconds"):
        StartingTogether().share("")


def test_a_process_that_is_not_reached_is_one_line(slurm: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TIMEOUT", 1)
    monkeypatch.setenv("SLURM_PROCID", "1")
    with pytest.raises(UserError, match="Process 1 cannot reach process 0 at 127.0.0.1:"):
        StartingTogether().share("")


def test_several_nodes_without_an_address_are_refused(refused: Refused) -> None:
    message = refused("fit", "--model=LeNet5", "--trainer.num_nodes=2", "--trainer.strategy=ddp")
    assert "--trainer.num_nodes 2 needs torchrun, srun, or MASTER_ADDR, MASTER_PORT and NODE_RANK." in message
