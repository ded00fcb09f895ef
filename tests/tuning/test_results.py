"""What TensorBoard's table of trials is told."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from google.protobuf.json_format import MessageToDict
from optuna.distributions import CategoricalDistribution
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import metadata

from src.tuning.results import describe_search, show_trials


def plugin_data(folder: Path) -> bytes:
    """What the events of a folder tell the HPARAMS tab."""
    [path] = folder.glob("events.*")
    values = [value for event in EventFileLoader(str(path)).Load() for value in event.summary.value]
    [data] = [value.metadata.plugin_data for value in values if value.metadata.plugin_data.plugin_name == "hparams"]
    return data.content


@pytest.mark.parametrize(
    ("choices", "shown"),
    [
        ([0, 1], [0, 1]),
        ([False, True], [False, True]),
        (["a", "b"], ["a", "b"]),
        ([0, 0.5], ["0", "0.5"]),  # TensorBoard allows one type for each setting
        ([None, 0.5], ["None", "0.5"]),
        (["a", 1, True], ["a", "1", "True"]),
    ],
)
def test_choices_of_several_types_are_shown_as_text(choices: list[Any], shown: list[Any], tmp_path: Path) -> None:
    ranges: Any = {"model.it": CategoricalDistribution(choices)}
    describe_search(tmp_path, ranges)
    experiment = metadata.parse_experiment_plugin_data(plugin_data(tmp_path))
    assert sorted(MessageToDict(experiment.hparam_infos[0].domain_discrete)) == sorted(shown)
    study = optuna.create_study()
    for number, choice in enumerate(choices):
        own = {"number": number, "folder": str(number)}
        study.add_trial(optuna.create_trial(value=1, params={"model.it": choice}, distributions=ranges, user_attrs=own))
    show_trials(study, tmp_path)
    trials = [metadata.parse_session_start_info_plugin_data(plugin_data(tmp_path / own)) for own in ("0", "1")]
    assert [MessageToDict(trial.hparams["model.it"]) for trial in trials] == shown[:2]
