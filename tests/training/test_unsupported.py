"""Settings of Lightning that are refused, each in a line with the reason."""

from pathlib import Path

import pytest

from tests.conftest import Refused, RunCLI
from tests.training.conftest import SHORT, Stop, assert_same_run

SLURM = {"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
SLURM |= {"SLURM_NODEID": "0", "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "mnist"}
TWO = ("--trainer.accelerator=cpu", "--trainer.devices=2")


@pytest.mark.parametrize(
    "strategy",
    [
        ("ddp_spawn",),
        ("ddp_fork",),
        ("ddp_notebook",),
        ("ddp_find_unused_parameters_true_spawn",),
        ("DDPStrategy", "--trainer.strategy.start_method=fork"),
    ],
)
@pytest.mark.parametrize("command", ["fit", "test"])
def test_processes_that_end_before_the_test_are_refused(
    refused: Refused, lenet5_run: Path, command: str, strategy: tuple[str, ...]
) -> None:
    network = "--model=LeNet5" if command == "fit" else f"--ckpt_path={lenet5_run / 'checkpoints' / 'last.ckpt'}"
    message = refused(command, network, *TWO, f"--trainer.strategy={strategy[0]}", *strategy[1:])
    assert f"error: --trainer.strategy {strategy[0]} is not supported: its processes end after the" in message


@pytest.mark.parametrize("slurm", [False, True])
def test_a_requeued_checkpoint_is_not_taken_up_unasked(
    cli: RunCLI, stop: Stop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slurm: bool
) -> None:
    """`tmp_path` is the default_root_dir, where Lightning looks for hpc_ckpt files."""
    for name, value in SLURM.items() if slurm else ():
        monkeypatch.setenv(name, value)
    whole = cli("fit", "--model=LeNet5", *SHORT).run
    checkpoint = whole / "checkpoints" / "last.ckpt"
    requeued = tmp_path / "hpc_ckpt_1.ckpt"
    requeued.write_bytes(checkpoint.read_bytes())
    outcome = cli("fit", "--model=LeNet5", *SHORT, "--seed_everything=1")
    assert outcome.code == 1
    assert f"Lightning would start this training from {requeued}. Remove it" in outcome.err
    outcome = cli("fit", "--model=LeNet5", *SHORT, "--resume=auto", "--seed_everything=1")
    assert f"Lightning would start this training from {requeued}. Remove it" in outcome.err
    requeued.unlink()
    again = cli("fit", "--model=LeNet5", *SHORT).run
    assert_same_run(whole, again)
