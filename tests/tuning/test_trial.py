"""Trials that Optuna ends early."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
import optuna
import pytest
from optuna.pruners import MedianPruner

from src.data import MNISTDataModule
from src.training.measuring import Measuring, measuring_of
from src.tuning.trial import Pruning
from tests.tiny import Tiny

ENDS = pytest.raises(optuna.TrialPruned)


@pytest.mark.parametrize(
    ("errors_of_others", "errors_before", "ends", "steps"),
    [
        (5, [], ENDS, [1]),
        (200, [], nullcontext(), [1, 2, 3]),
        (100, [0, 0], nullcontext(), [7, 8, 9]),  # the mean with two seeds before
        (100, [500, 500], ENDS, [7]),
    ],
)
def test_a_trial_with_more_errors_than_half_of_the_others_ends_after_an_epoch(
    mnist: Path, errors_of_others: float, errors_before: list[int], ends: Any, steps: list[int]
) -> None:
    study = optuna.create_study(pruner=MedianPruner(n_startup_trials=1))
    reported = dict.fromkeys(range(1, 10), errors_of_others)
    study.add_trial(optuna.create_trial(value=errors_of_others, intermediate_values=reported))
    trainer = lightning.Trainer(
        max_epochs=3,
        limit_train_batches=5,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        callbacks=[Measuring(), Pruning(study.ask(), errors_before)],
    )
    network = Tiny()
    with ends:
        trainer.fit(network, datamodule=MNISTDataModule(str(mnist), val_size=200))
    assert list(study.trials[-1].intermediate_values) == steps
    last = measuring_of(trainer).newest["val"]["errors"].item()
    expected = sum([*errors_before, last]) / (len(errors_before) + 1)
    assert study.trials[-1].intermediate_values[steps[-1]] == expected
