"""How the processes of a training were started, and what does not fit it."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only

from src.system import processes
from src.system.processes import cluster_environment
from tests.conftest import Refused, RunCLI
from tests.forks import Fork, command_line
from tests.training.conftest import SHORT
from tests.training.test_distributed import free_port

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
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # Lightning sets it
    message = refused(command, *source, *devices)
    assert re.search(f"error: The environment has {variables.split()[0]}.*, but --trainer.devices", message)


def test_the_variables_of_one_process_are_accepted(cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOCAL_RANK=0", "RANK=0", "WORLD_SIZE=1"):
        monkeypatch.setenv(*variable.split("="))
    assert cli("fit", "--model=LeNet5", *SHORT).code == 0


def in_three_seconds(*args: str) -> int:
    processes.TIMEOUT = timedelta(seconds=3)
    return command_line(*args)


def test_a_process_that_waits_in_vain_ends(tmp_path: Path) -> None:
    """As process 0 of two, whose other one ended before it could join."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    of_torchrun = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "2"}
    settings = ("fit", "--model=LeNet5", *SHORT, *TWO, f"--trainer.default_root_dir={tmp_path}")
    outcome = Fork(tmp_path, *settings, function=in_three_seconds, env=address | of_torchrun).wait(100)
    assert outcome.code == 1 and "Timed out" in outcome.err, outcome
