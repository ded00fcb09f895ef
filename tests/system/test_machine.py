"""Numbers near zero, with which the CPU computes slowly."""

from pathlib import Path

import pytest
import torch

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
