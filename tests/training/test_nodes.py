"""Two nodes without a shared folder, and SLURM: two processes with its variables, in two working directories."""

import faulthandler
import shutil
import signal
from pathlib import Path

import pytest

from src.runs.checkpoints import load_checkpoint
from src.runs.folder import Run
from tests.conftest import ROOT
from tests.forks import Fork, Outcome
from tests.training.conftest import SHORT
from tests.training.test_distributed import free_port

TWO = ("--trainer.accelerator=cpu", "--trainer.strategy=ddp", "--trainer.num_nodes=2")
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
FIT = ("fit", "--model=LeNet5", *SHORT, *TWO, *QUIET)
RUN = Path("lightning_logs", "lenet5", "version_0")


@pytest.fixture
def nodes(mnist: Path, tmp_path: Path) -> list[Path]:
    """The working directories of two nodes, each with its own data."""
    folders = [tmp_path / "node0", tmp_path / "node1"]
    for folder in folders:
        shutil.copytree(mnist, folder / "data")
    return folders


def srun(nodes: list[Path], *args: str, second: tuple[str, ...] = ()) -> list[Fork]:
    """Start a process on each node with the variables that srun sets. `second` has more arguments for the second."""
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "mnist",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_LOCALID": "0",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    return [
        Fork(node.parent, *args, *more, env=job | {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)}, cwd=node)
        for rank, (node, more) in enumerate(zip(nodes, ((), second), strict=True))
    ]


def ends(processes: list[Fork], timeout: float = 60) -> list[Outcome]:
    outcomes = [process.wait(timeout) for process in processes]
    for outcome in outcomes:
        assert "Traceback" not in outcome.err and outcome.code >= 0, outcomes  # below 0: it hung and was killed
    return outcomes


def stopped_run(nodes: list[Path]) -> Outcome:
    """Stop a training on SLURM's signal, which each process gets, and return what process 0 printed."""
    processes = srun(nodes, *FIT, "--trainer.limit_train_batches=150", "--save_every_n_steps=1")
    processes[0].wait_until((nodes[0] / RUN / "checkpoints" / "last.ckpt").exists)
    for process in processes:
        process.send_signal(signal.SIGUSR1)
    first, second = ends(processes)
    assert (first.code, second.code) == (128 + signal.SIGUSR1, 0)
    return first


def test_slurm_signal_saves_and_resumes(nodes: list[Path]) -> None:
    """The run resumes where both nodes have its folder. Elsewhere it is refused in a line."""
    first = stopped_run(nodes)
    assert f"Go on with: python -m src fit --resume {RUN}\n" in first.err
    assert not list(nodes[0].parent.rglob("hpc_ckpt*"))
    assert not (nodes[1] / "lightning_logs").exists()  # process 0 writes everything
    settings = (*FIT, "--trainer.limit_train_batches=150")
    checkpoint = nodes[0] / RUN / "checkpoints" / "last.ckpt"
    steps = load_checkpoint(checkpoint)["global_step"]

    # The second node has an older checkpoint: both end, with a line each.
    shutil.copytree(nodes[0] / RUN, nodes[1] / RUN)
    shutil.copyfile(checkpoint.with_name("previous.ckpt"), nodes[1] / RUN / "checkpoints" / "last.ckpt")
    for outcome in ends(srun(nodes, *settings, "--resume=auto")):
        assert outcome.code == 1
        assert "start at different steps" in outcome.err and "Each node needs the same run folder" in outcome.err
    assert load_checkpoint(checkpoint)["global_step"] == steps

    shutil.copyfile(checkpoint, nodes[1] / RUN / "checkpoints" / "last.ckpt")
    first, second = ends(srun(nodes, *settings, "--trainer.max_epochs=2", "--resume=auto"))
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert f"Resuming {RUN}" in first.out and Run(nodes[0] / RUN).is_finished


def test_signal_to_one_process_ends_both(nodes: list[Path]) -> None:
    processes = srun(nodes, *FIT, "--trainer.limit_train_batches=150", "--save_every_n_steps=1")
    processes[0].wait_until((nodes[0] / RUN / "checkpoints" / "last.ckpt").exists)
    processes[1].send_signal(signal.SIGUSR1)
    first, second = ends(processes)
    assert (first.code, second.code) == (128 + signal.SIGUSR1, 0)
    assert "Go on with: python -m src fit --resume" in first.err


def test_a_killed_process_ends_the_other(nodes: list[Path]) -> None:
    """The folder of the data may differ between nodes."""
    (nodes[1] / "data").rename(nodes[1] / "mnist")
    long = ("--trainer.limit_train_batches=150", "--save_every_n_steps=1")
    processes = srun(nodes, *FIT, *long, second=("--data.data_dir=mnist",))
    processes[0].wait_until((nodes[0] / RUN / "checkpoints" / "last.ckpt").exists)
    processes[1].kill()
    assert processes[0].wait(60).code == 1


def torchrun(nodes: list[Path], *args: str) -> list[Fork]:
    port = free_port()
    return [
        Fork(
            node.parent,
            *("--nnodes=2", f"--node_rank={rank}", "--master_addr=127.0.0.1", f"--master_port={port}"),
            *("--nproc_per_node=1", "-m", "src", *args),
            function=launcher,
            env={"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            cwd=node,
        )
        for rank, node in enumerate(nodes)
    ]


def launcher(*args: str) -> None:
    from torch.distributed.run import main

    faulthandler.dump_traceback_later(110)
    main(list(args))


# Slow: once in about 16 runs, the first launcher was still running two minutes after both trainings had ended. torchrun
# waits up to 300 s for the other launchers, which no option changes (`LocalElasticAgent._exit_barrier`). It was not
# seen in 60 runs of an empty script. If it happens again, the error shows where the launcher is.
# tests/training/test_distributed.py trains through torchrun too.
@pytest.mark.slow
def test_torchrun_in_two_folders(nodes: list[Path]) -> None:
    """`--resume auto` starts a new run, where no node has one."""
    for process in torchrun(nodes, *FIT, "--resume=auto"):
        process.finish(120)
    assert Run(nodes[0] / RUN).is_finished
    assert not (nodes[1] / "lightning_logs").exists()


def test_two_launchers_of_lightning(nodes: list[Path]) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = [
        Fork(node.parent, *FIT, env=address | {"NODE_RANK": str(rank)}, cwd=node) for rank, node in enumerate(nodes)
    ]
    outcomes = ends(processes)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert Run(nodes[0] / RUN).is_finished
    assert not (nodes[1] / "lightning_logs").exists()
