"""Numbers near zero, with which the CPU computes slowly, and the name of the processor."""

import platform
from pathlib import Path

import pytest
import torch

from src.system.machine import cpu_name
from tests.conftest import CURVES_ALONE
from tests.forks import Fork


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="torch cannot change this on this processor")
def test_adams_means_of_idle_weights_become_zero(mnist: Path, tmp_path: Path) -> None:
    """With these betas they shrink to a tenth in each step. With one image a batch, many gradients are zero."""
    limits = ("--trainer.max_steps=80", "--trainer.limit_val_batches=1", "--trainer.limit_test_batches=1", CURVES_ALONE)
    settings = ("--model=LeNet5", "--model.betas=[0.1, 0.1]", "--data.batch_size=1", f"--data.data_dir={mnist}")
    run = Fork(tmp_path, "fit", *settings, *limits, f"--trainer.default_root_dir={tmp_path}").wait().run
    (saved,) = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"]
    means = torch.cat(
        [state[name].flatten() for state in saved["state"].values() for name in ("exp_avg", "exp_avg_sq")]
    )
    assert (means == 0).any()
    smallest = means[means != 0].abs().min()
    assert smallest >= torch.finfo(torch.float32).smallest_normal


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (
            "model name\t: AMD EPYC\ncpu family\t: 25\nmodel\t\t: 17\nflags\t\t: avx2 avx512f avx512_bf16",
            "AMD EPYC (family 25, model 17) with AVX-512, bfloat16",
        ),
        (
            "model name\t: Xeon\ncpu family\t: 6\nmodel\t\t: 143\nflags\t\t: avx512f amx_bf16 amx_tile",
            "Xeon (family 6, model 143) with AVX-512, bfloat16, AMX",
        ),
        (
            "model name\t: AMD EPYC 7763\ncpu family\t: 25\nmodel\t\t: 1\nflags\t\t: fma avx2",
            "AMD EPYC 7763 (family 25, model 1) with no AVX-512",
        ),
        ("BogoMIPS\t: 50\nFeatures\t: asimd bf16", platform.machine()),  # Arm
    ],
)
def test_the_processor_is_named_with_its_features(tmp_path: Path, lines: str, name: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{lines}\n\nprocessor\t: 1\n{lines.replace('avx512f', '')}\n\n")
    assert cpu_name(cpuinfo) == name


def test_a_system_without_that_file_names_the_architecture(tmp_path: Path) -> None:
    assert cpu_name(tmp_path / "cpuinfo") == platform.machine()
