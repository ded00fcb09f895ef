"""How the processes of a training were started, and what does not fit it."""

import re

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from src.system.processes import cluster_environment
from tests.conftest import Refused, RunCLI
from tests.training.conftest import SHORT

SLURM = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
TWO = ("--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.devices=2")


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SLURM.items():
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


def test_several_nodes_without_an_address_are_refused(refused: Refused) -> None:
    message = refused("fit", "--model=LeNet5", "--trainer.num_nodes=2", "--trainer.strategy=ddp")
    assert "--trainer.num_nodes 2 needs torchrun, srun, or MASTER_ADDR, MASTER_PORT and NODE_RANK." in message


@pytest.mark.parametrize("command", ["fit", "test"])
@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ("LOCAL_RANK=0", TWO),  # a container image sets it; Lightning would wait for ever
        ("RANK=0", TWO),
        ("LOCAL_RANK=0 RANK=0 WORLD_SIZE=1", TWO),  # torchrun starts one process
        ("LOCAL_RANK=1 RANK=1 WORLD_SIZE=2", ()),  # torchrun starts two; each would train a run
        ("LOCAL_RANK=2 RANK=0 WORLD_SIZE=2", TWO),
    ],
)
def test_processes_that_nobody_starts_are_refused(
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    command: str,
    variables: str,
    devices: tuple[str, ...],
) -> None:
    source = ["--model=LeNet5"]
    if command == "test":
        source = [f"--ckpt_path={request.getfixturevalue('lenet5_run') / 'checkpoints' / 'last.ckpt'}"]
    for variable in variables.split():
        monkeypatch.setenv(*variable.split("="))
    message = refused(command, *source, *devices)
    assert re.search(f"error: The environment has {variables.split()[0]}.*, but --trainer.devices", message)


def test_the_variables_of_one_process_are_accepted(cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOCAL_RANK=0", "RANK=0", "WORLD_SIZE=1"):
        monkeypatch.setenv(*variable.split("="))
    assert cli("fit", "--model=LeNet5", *SHORT).code == 0
