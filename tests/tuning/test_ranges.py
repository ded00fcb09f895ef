"""The search file: mistakes in it end the command before the first trial."""

import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

import src.tuning
from src.system.errors import UserError
from src.system.machine import install_command
from src.tuning.ranges import choose, is_wider, read_ranges
from tests.conftest import LETTERS, Refused, RunCLI


def test_each_form_is_a_range(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(
        "model.lr: {log: [1e-4, 0.1]}\nmodel.dropout: {float: [0, 0.5]}\ndata.max_shift: {int: [0, 3]}\n"
        "model.betas: {choice: [[0.9, 0.99], [0.9, 0.999]]}\nmodel.schedule: {choice: [constant, one_cycle]}\n"
    )
    trial = optuna.create_study().ask()
    for name, written in read_ranges(file).items():
        choose(trial, name, written)
    assert trial.distributions == {
        "model.lr": FloatDistribution(1e-4, 0.1, log=True),
        "model.dropout": FloatDistribution(0, 0.5),
        "data.max_shift": IntDistribution(0, 3),
        "model.betas": CategoricalDistribution(["[0.9, 0.99]", "[0.9, 0.999]"]),
        "model.schedule": CategoricalDistribution(["constant", "one_cycle"]),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("modle.lr: {log: [1e-4, 0.1]}", ": modle.lr can't be searched."),
        ("data.val_size: {int: [1000, 5000]}", ": data.val_size can't be searched."),
        ("seed_everything: {int: [0, 5]}", ": seed_everything can't be searched."),
        ("model.lr: {float: [0, .inf]}", ': model.lr: {"float": [0, Infinity]} is not a range.'),
        ("model.lr: {choice: [0.1, .nan]}", ': model.lr: {"choice": [0.1, NaN]} is not a range.'),
        ("model.lr: {choice: 3}", ': model.lr: {"choice": 3} is not a range.'),
        ("model.lr: {choice: [2020-01-01]}", ': model.lr: {"choice": ["2020-01-01"]} is not a range.'),
        ("model.lr: [1e-4, 0.1]", ': model.lr: ["1e-4", 0.1] is not a range. Write {log: '),
        ("model.lr: {log: [0.1]}", ': model.lr: {"log": [0.1]} is not a range.'),
        ("model.lr: {logarithmic: [0.1, 1]}", ': model.lr: {"logarithmic": [0.1, 1]} is not a range.'),
        ("model.lr: {log: [0, 0.1]}", ': model.lr: {"log": [0, 0.1]} is not a range.'),
        ("model.lr: {float: [1, 0.1]}", ': model.lr: {"float": [1, 0.1]} is not a range.'),
        ("model.lr: {float: [low, high]}", ': model.lr: {"float": ["low", "high"]} is not a range.'),
        ("data.max_shift: {int: [0, 1.5]}", ': data.max_shift: {"int": [0, 1.5]} is not a range.'),
        ("model.schedule: {choice: []}", ': model.schedule: {"choice": []} is not a range.'),
        ("model.lr: {log: [1e-4, 0.1]}\nmodel.lr: {log: [1e-4, 1]}", " names model.lr twice."),
        ("model.lr: {log: [1e-4, 1]}\nmodel.init_args.lr: {float: [0, 1]}", " names model.lr twice."),
        ("model.lr: {log: [1e-4, 1]}\n--model.lr: {float: [0, 1]}", ": --model.lr can't be searched."),
        ("model.schedule: {choice: [constant, constant]}", ': model.schedule: {"choice": ["constant", "constant"]}'),
        ("data.init_args.val_size: {int: [1000, 5000]}", ": data.init_args.val_size can't be searched."),
        ("- model.lr", " names no settings."),
        ("", " names no settings."),
        ("model.lr: {", " is not YAML: "),
    ],
)
def test_a_wrong_form_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as refused:
        read_ranges(file)
    assert str(refused.value).startswith(f"{file}{message}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "wider"),
    [
        ({"log": ["1e-4", 0.1]}, {"log": ["1e-5", 0.1]}, True),
        ({"int": [0, 2]}, {"int": [0, 10]}, True),
        ({"float": [0, 0.5]}, {"float": [0.1, 0.9]}, False),
        ({"float": [0, 0.5]}, {"float": [-1, 0.4]}, False),
        ({"float": [0.1, 0.5]}, {"log": [0.1, 0.9]}, False),
        ({"choice": [1, 2]}, {"choice": [1, 2, 3]}, False),
    ],
)
def test_a_range_of_numbers_may_become_wider_in_its_form(old: Any, new: Any, wider: bool) -> None:
    assert is_wider(new, old) == wider


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model.rl: {log: [1e-4, 0.1]}", "model.rl: "),
        ("model.schedule: {choice: [constant, linear]}", "model.schedule: "),
        ("data.batch_size: {float: [1, 8]}", "data.batch_size: --data.batch_size 1.0 is not valid"),
    ],
)
def test_a_wrong_setting_in_the_search_file_ends_the_command(
    refused: Refused, tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(content)
    common = ("--model=tests.tiny.Tiny", "--data.val_size=100", f"--search={file}", f"--output={tmp_path}")
    assert refused("tune", *common).startswith(f"error: {file}: {message}")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data.val_size=0"], "Set their number: --data.val_size 10000"),
        (["--data.val_size=60000"], "val_size is 60000; it must be 0 … 59,999"),
        (["--search=no/such.yaml"], "no/such.yaml can't be read: No such file or directory."),
        (["--trainer.devices=2"], "Use --jobs for several trials at once."),
        (["--trainer.limit_val_batches=0"], "--trainer.limit_val_batches is 0"),
        (["--trainer.fast_dev_run=true"], "tune does not work with --trainer.fast_dev_run."),
        (["--resume=auto"], "To continue a search, run its command again."),
        (["--name=a/b"], "--name 'a/b' is not the name of a folder."),
        (["--storage=nodriver://nowhere/db"], "The storage nodriver://nowhere/db can't be used: "),
        (["--against=configs/ddp.yaml"], "configs/ddp.yaml names no network."),
    ],
)
def test_a_mistake_on_the_command_line_is_named(cli: RunCLI, tmp_path: Path, args: list[str], message: str) -> None:
    (tmp_path / "search.yaml").write_text("model.lr: {log: [1e-4, 0.1]}")
    common = ("--model=tests.tiny.Tiny", "--data.val_size=100", f"--search={tmp_path}/search.yaml")
    outcome = cli("tune", *common, f"--output={tmp_path}/tuning", *args)
    assert outcome.code == 1, outcome
    assert message in outcome.err
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) <= 2


def test_a_search_without_a_search_file_or_network_is_refused(cli: RunCLI, tmp_path: Path) -> None:
    assert "--search configs/search.yaml" in cli("tune", "--config=configs/lenet5.yaml").err
    (tmp_path / "search.yaml").write_text("model.lr: {log: [1e-4, 0.1]}")
    assert "Name a network" in cli("tune", f"--search={tmp_path}/search.yaml").err


def test_the_search_file_of_the_package_is_accepted(cli: RunCLI, tmp_path: Path) -> None:
    """Up to the check after it."""
    common = ("--config=configs/lenet5.yaml", "--data.val_size=100", "--search=configs/search.yaml")
    assert (
        "sqlite"
        not in (outcome := cli("tune", *common, f"--storage=nodriver://{tmp_path}", f"--output={tmp_path}")).out
    )
    assert outcome.err.startswith("error: The storage nodriver://")


def test_without_optuna_a_line_says_how_to_install_it(cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(src, "tuning", src.tuning)  # the import below replaces it
    for name in [name for name in sys.modules if name.startswith("src.tuning")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    outcome = cli("tune", "--config=configs/lenet5.yaml", "--search=configs/search.yaml")
    assert (outcome.code, outcome.err) == (
        1,
        f"error: optuna is not installed. tune needs: {install_command('tune')}\n",
    )


def test_a_damaged_study_is_named(cli: RunCLI, tmp_path: Path) -> None:
    (tmp_path / "lenet5" / "trials").mkdir(parents=True)
    (tmp_path / "lenet5" / "study.db").write_bytes(b"no database" * 1000)
    common = ("--config=configs/lenet5.yaml", "--data.val_size=100", "--search=configs/search.yaml")
    outcome = cli("tune", *common, f"--output={tmp_path}")
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: The storage sqlite:///{tmp_path}/lenet5/study.db can't be used: ")
    assert len(outcome.err.splitlines()) == 1


def test_a_folder_with_other_files_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "best.yaml").write_text("of the user")
    common = ("--config=configs/lenet5.yaml", "--data.val_size=100", "--search=configs/search.yaml")
    message = refused("tune", *common, f"--output={tmp_path}", "--name=mine")
    assert message == f"error: {tmp_path}/mine is not the folder of a search. Choose another --name."


def test_a_trial_of_a_lost_study_is_not_overwritten(cli: RunCLI, letters: Path, tmp_path: Path) -> None:
    lost = tmp_path / "tiny" / "trials" / "trial_000" / "seed_0"
    lost.mkdir(parents=True)
    (lost / "config.yaml").write_text("of the user")
    (tmp_path / "search.yaml").write_text("model.lr: {log: [1e-4, 0.1]}")
    data = [f"--data.data_dir={letters}", f"--data.classes={LETTERS}", "--data.val_size=100"]
    outcome = cli("tune", "--model=tests.tiny.Tiny", *data, f"--search={tmp_path}/search.yaml", f"--output={tmp_path}")
    assert outcome.code == 1
    assert outcome.err == f"error: {lost} exists, but its search doesn't know it. Choose another --name.\n"
    assert [path.name for path in lost.iterdir()] == ["config.yaml"]
    assert (lost / "config.yaml").read_text() == "of the user"
