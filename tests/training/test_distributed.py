"""Training and evaluation from real processes, over gloo on the CPU: the same as on one device."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CURVES_ALONE, ROOT, SHORT, RunCLI, train
from tests.forks import Fork

Alone = Callable[..., dict[str, float]]
RECORDER = "--trainer.callbacks+=tests.recorder.Recorder"


def processes(count: int, strategy: str = "ddp") -> list[str]:
    return ["--trainer.accelerator=cpu", f"--trainer.strategy={strategy}", f"--trainer.devices={count}"]


def run(record: Path, *args: str, launcher: tuple[str, ...] = ("-m", "src")) -> subprocess.Popen[str]:
    """Start the processes as a user does, through the launcher of Lightning or another one."""
    record.mkdir(exist_ok=True)
    environment = os.environ | {"RECORD": str(record), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, *args]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def run_forks(record: Path, count: int, *args: str, strategy: str = "ddp") -> str:
    """Fork `count` processes with the environment that Lightning's launcher gives its own, and return their outputs."""
    record.mkdir(exist_ok=True)
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NODE_RANK": "0", "WORLD_SIZE": str(count)}
    env |= {"RECORD": str(record), "OMP_NUM_THREADS": "1"}
    forks = [
        Fork(record, *args, *processes(count, strategy), env=env | {"LOCAL_RANK": str(rank)}) for rank in range(count)
    ]
    return "".join(fork.finish() for fork in forks)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def recorded(record: Path) -> list[dict[str, float]]:
    return [json.loads(path.read_text()) for path in sorted(record.glob("rank_*.json"))]


@pytest.fixture
def alone(cli: RunCLI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Alone:
    """Do the same in this process, on one device."""

    def record(*args: str) -> dict[str, float]:
        monkeypatch.setenv("RECORD", str(tmp_path))
        outcome = cli(*args, "--trainer.accelerator=cpu", RECORDER)
        assert outcome.code == 0, outcome.err
        (values,) = recorded(tmp_path)
        return values

    return record


@pytest.fixture(scope="module")
def checkpoint(mnist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet5 after a few steps, with 4,999 images held out: a prime number, which no device count divides."""
    folder = tmp_path_factory.mktemp("checkpoint")
    train(folder, "--model=LeNet5", "--data.val_size=4999", *SHORT)
    return folder / "lightning_logs" / "lenet5" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("devices", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_validation_is_the_same_on_any_number_of_devices(
    checkpoint: Path, tmp_path: Path, alone: Alone, devices: int
) -> None:
    command = ("validate", f"--ckpt_path={checkpoint}")
    expected = alone(*command)
    record = tmp_path / str(devices)
    output = run_forks(record, devices, *command, RECORDER)
    assert output.count("errors in 4,999 images") == 1  # told by one process
    assert recorded(record) == [pytest.approx(expected, abs=1e-6)] * devices


def test_test_and_predictions_are_the_same_on_1_and_3_devices(checkpoint: Path, tmp_path: Path, cli: RunCLI) -> None:
    expected = json.loads((checkpoint.parents[1] / "results.json").read_text())["test"]
    run_forks(tmp_path, 3, "test", f"--ckpt_path={checkpoint}", RECORDER)
    ranks = recorded(tmp_path)
    assert len(ranks) == 3
    for rank in ranks:
        assert rank["test_loss"] == pytest.approx(expected["loss"], abs=1e-6)
        assert rank["test_accuracy"] == pytest.approx(expected["accuracy"], abs=1e-6)

    def table() -> list[list[float]]:
        rows = (checkpoint.parents[1] / "predictions.csv").read_text().splitlines()[1:]
        return [[float(value) for value in row.split(",")] for row in rows]

    assert cli("predict", f"--ckpt_path={checkpoint}").code == 0
    predicted = table()
    run_forks(tmp_path, 3, "predict", f"--ckpt_path={checkpoint}")
    assert len(predicted) == 10_000
    pairs = zip(table(), predicted, strict=True)
    assert [pair for pair in pairs if pair[0] != pytest.approx(pair[1], abs=2e-6)] == []


@pytest.mark.parametrize("devices", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_training_is_the_same_on_any_number_of_devices(tmp_path: Path, alone: Alone, devices: int) -> None:
    """In double precision, where rounding can't hide a difference: 32 images on 3 devices are 10, 11 and 11."""
    steps = ("--trainer.max_epochs=2", "--trainer.limit_train_batches=20", "--trainer.limit_val_batches=5")
    few = (*steps, "--trainer.limit_test_batches=2", "--data.batch_size=32", CURVES_ALONE)
    settings = ("--trainer.precision=64-true", *few)
    expected = alone("fit", "--config=configs/lenet5.yaml", *settings)
    record = tmp_path / str(devices)
    root = f"--trainer.default_root_dir={record}"
    if devices == 2:
        overlay = ("--config=configs/ddp.yaml", "--trainer.accelerator=cpu")
        finish(run(record, "fit", "--config=configs/lenet5.yaml", *overlay, *settings, root, RECORDER))
    else:
        run_forks(record, devices, "fit", "--config=configs/lenet5.yaml", *settings, root, RECORDER)
    assert [path.name for path in (record / "lightning_logs" / "lenet5").iterdir()] == ["version_0"]
    ranks = recorded(record)
    assert len({rank["random"] for rank in ranks}) == devices  # own dropout masks
    for rank in ranks:
        assert rank["weights"] == ranks[0]["weights"]
        assert rank["weights"] == pytest.approx(expected["weights"], rel=1e-10)
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert rank[name] == pytest.approx(expected[name], rel=1e-6), name


def test_torchrun_trains_on_two_nodes(tmp_path: Path) -> None:
    """Two launchers, as on two machines, which share a file system."""
    port = free_port()
    nodes = []
    for node in range(2):
        rendezvous = ("--nnodes=2", f"--node_rank={node}", "--master_addr=127.0.0.1", f"--master_port={port}")
        launcher = ("-m", "torch.distributed.run", *rendezvous, "--nproc_per_node=1", "-m", "src")
        settings = (*SHORT, "--trainer.limit_test_batches=9", *processes(1), "--trainer.num_nodes=2")
        settings += (f"--trainer.default_root_dir={tmp_path}", RECORDER)
        nodes.append(run(tmp_path, "fit", "--config=configs/cnn.yaml", *settings, launcher=launcher))
    outputs = [finish(node) for node in nodes]
    assert sum("test accuracy" in output for output in outputs) == 1
    first, second = recorded(tmp_path)
    assert first["weights"] == second["weights"]
    results = json.loads((tmp_path / "lightning_logs" / "cnn" / "version_0" / "results.json").read_text())
    assert results["machine"]["devices"] == 2
    assert results["test"]["images"] == 9 * 128


def test_mistake_ends_all_processes_with_one_plain_answer(tmp_path: Path) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    process = run(tmp_path, "fit", "--model=LeNet5", "--data.batch_size=1", root, *processes(2))
    output, _ = process.communicate(timeout=100)  # returns when the last process has closed its end
    assert process.returncode == 1
    assert output.count("error:") == 1 and "batch_size is 1; it must be at least 2, one per device" in output
    assert "Traceback" not in output
    assert list(tmp_path.rglob("version_*")) == []


def test_a_training_of_two_devices_goes_on_on_one(tmp_path: Path, alone: Alone) -> None:
    """From inside an epoch, in 64 bits: rounding differs."""
    limits = [f"--trainer.limit_{name}_batches={n}" for name, n in (("train", 8), ("val", 2), ("test", 2))]
    short = ("--trainer.max_epochs=1", "--data.batch_size=32", "--trainer.precision=64-true", *limits, CURVES_ALONE)
    words = ("fit", "--model=tests.tiny.Tiny", "--model.width=16", *short)
    whole = alone(*words)
    saves = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=3"]
    saves += ["--trainer.callbacks.save_top_k=-1", "--trainer.callbacks.filename={step}"]
    run_forks(tmp_path / "two", 2, *words, *saves, f"--trainer.default_root_dir={tmp_path / 'two'}")
    checkpoints = tmp_path / "two" / "lightning_logs" / "tiny" / "version_0" / "checkpoints"
    resumed = alone(*words, f"--ckpt_path={checkpoints / 'step=3.ckpt'}")
    for name in ("weights", "train_loss", "train_accuracy", "val_loss"):
        assert resumed[name] == pytest.approx(whole[name], rel=1e-6), name
