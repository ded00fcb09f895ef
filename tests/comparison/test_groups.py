"""Which runs are compared, which are left out, and why."""

from pathlib import Path

import pytest
import yaml

from src.comparison.groups import (
    Group,
    common_data_set,
    count_each_seed_once,
    data_differences,
    early_stops,
    find_groups,
    name_apart,
)
from src.comparison.planned import PlannedRuns
from src.runs.checkpoints import MNIST
from src.runs.folder import Run
from src.runs.recipe import recipe
from src.system.errors import UserError
from tests.comparison.made_up import make_run, settings_of_fit


def test_a_group_is_the_runs_that_differ_in_seed_and_folders_alone(tmp_path: Path) -> None:
    for seed in (2, 0, 10):
        make_run(tmp_path / "lenet5" / f"version_{seed}", seed)
    make_run(tmp_path / "cnn" / "version_0", model="CNN", trainer__enable_progress_bar=False)
    make_run(tmp_path / "cnn" / "version_1", seed=1, model="CNN")
    groups, left_out = find_groups([tmp_path / "lenet5", tmp_path / "cnn"])
    count_each_seed_once(groups, left_out)
    assert [(group.name, [run.results["seed"] for run in group.runs]) for group in groups] == [
        ("LeNet5", [0, 2, 10]),
        ("CNN", [0, 1]),
    ]
    assert left_out == {}
    assert [group.name for group in find_groups([tmp_path])[0]] == ["CNN", "LeNet5"]


def test_other_runs_are_left_out_by_name(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path / f"version_{seed}", seed)
    repeated = make_run(tmp_path / "version_3", seed=1)
    other = make_run(tmp_path / "version_4", seed=3, trainer__max_epochs=1)
    held_out = make_run(tmp_path / "version_5", seed=3, data__val_size=5000)
    unfinished = make_run(tmp_path / "version 6", seed=3, finished=False)
    damaged = make_run(tmp_path / "version_7", seed=3)
    (damaged / "results.json").write_text('{"model": "LeNet5"')
    old = make_run(tmp_path / "version_8", seed=3)
    (old / "results.json").write_text('{"model": "LeNet5"}')
    groups, left_out = find_groups([tmp_path])
    count_each_seed_once(groups, left_out)
    assert [run.results["seed"] for run in groups[0].runs] == [0, 1, 2]
    assert left_out.keys() == {repeated, other, held_out, unfinished, damaged, old}
    assert str(tmp_path / "version_1") in left_out[repeated]
    assert "trainer.max_epochs: 1, not 3" in left_out[other]
    assert "data.val_size: 5000, not 0" in left_out[held_out]
    command = f"python -m src fit --resume '{unfinished}'"
    assert left_out[unfinished] == f"It is not finished. Continue it: {command}"
    assert left_out[damaged] == f"{damaged / 'results.json'} is damaged."
    assert left_out[old].startswith("Its results.json has no curves, epochs, parameters, seed, train_seconds.")


def test_a_limit_of_one_batch_is_not_one_of_all_batches(tmp_path: Path) -> None:
    for seed, limit in enumerate((1.0, None, 1)):
        make_run(tmp_path / f"version_{seed}", seed, trainer__limit_train_batches=limit)
    [group], left_out = find_groups([tmp_path])
    assert [run.results["seed"] for run in group.runs] == [0, 1]
    assert "trainer.limit_train_batches: 1, not None" in left_out[tmp_path / "version_2"]


def test_the_same_network_with_two_recipes_in_two_folders(tmp_path: Path) -> None:
    make_run(tmp_path / "slow" / "version_0")
    make_run(tmp_path / "fast" / "version_0", trainer__max_epochs=1, data__val_size=100)
    groups, _ = find_groups([tmp_path / "slow", tmp_path / "fast"])
    name_apart(groups)
    assert [group.name for group in groups] == [
        "LeNet5 (val_size 0, max_epochs 3)",
        "LeNet5 (val_size 100, max_epochs 1)",
    ]
    assert data_differences(groups) == ["The data settings differ: data.val_size: 0 and 100."]


def test_the_same_recipe_in_two_folders_is_one_group(tmp_path: Path) -> None:
    make_run(tmp_path / "a" / "version_0", seed=0)
    make_run(tmp_path / "b" / "version_0", seed=1)
    groups, _ = find_groups([tmp_path / "a", tmp_path / "b", tmp_path / "a"])
    assert [[run.results["seed"] for run in group.runs] for group in groups] == [[0, 1]]


def test_planned_seeds_only(tmp_path: Path) -> None:
    folder = tmp_path / "lightning_logs" / "lenet5"
    for seed in range(4):
        make_run(folder / f"version_{seed}", seed)
    make_run(folder / "version_9", seed=1, trainer__max_epochs=1)
    of_runs = recipe(yaml.safe_load((folder / "version_0" / "config.yaml").read_text()))
    settings = settings_of_fit(tmp_path, "src.models.LeNet5")
    group = PlannedRuns(Path("lenet5.yaml"), "LeNet5", of_runs, settings, n_seeds=3).finished()
    assert [run.folder.name for run in group.runs] == ["version_0", "version_1", "version_2"]


def test_a_setting_that_is_null_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    """So the runs of before a setting came are still of the same recipe."""
    make_run(tmp_path / "version_0")
    make_run(tmp_path / "version_1", seed=1, data__classes=None)
    (group,), left_out = find_groups([tmp_path])
    assert (len(group.runs), left_out) == (2, {})


def test_runs_of_different_data_sets(tmp_path: Path) -> None:
    letters = ["A", "B"]
    make_run(tmp_path / "mnist")
    make_run(tmp_path / "letters", data__classes=letters)
    make_run(tmp_path / "more", model="CNN", data__classes=letters)
    damaged = make_run(tmp_path / "damaged", data__classes=5)
    groups = [find_groups([tmp_path / name])[0][0] for name in ("letters", "more", "mnist")]
    assert common_data_set([group.recipe for group in groups[:2]]) == {
        "class_path": MNIST,
        "classes": letters,
        "dataset": "mnist",
    }
    assert common_data_set([groups[2].recipe])["classes"] is None
    with pytest.raises(UserError, match="can't be compared: A, B, and mnist"):
        common_data_set([group.recipe for group in groups])
    assert find_groups([tmp_path])[1][damaged] == "Its config.yaml has classes that are no list of names."


def test_the_class_of_the_data_tells_data_sets_apart() -> None:
    old = {"data": {"data_dir": "data", "batch_size": 64, "dataset": "mnist"}}  # before data modules had a class
    new = {"data": {"class_path": MNIST, "init_args": old["data"] | {"seed": None}}}
    assert recipe(old) == recipe(new) == {"data.batch_size": 64}
    own = {"data": {"class_path": "my.Data", "init_args": {"data_dir": "cats", "batch_size": 64, "seed": 3}}}
    assert recipe(own) == {
        "data.class_path": "my.Data",
        "data.init_args.data_dir": "cats",
        "data.init_args.batch_size": 64,
        "data.init_args.seed": 3,
    }
    with pytest.raises(UserError, match="can't be compared: mnist, and my.Data"):
        common_data_set([recipe(new), recipe(own)])


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_finished_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"{tmp_path / name}"):
        find_groups([tmp_path / name])


def test_runs_that_stopped_early_are_named(tmp_path: Path) -> None:
    runs = [Run(tmp_path / str(seed)) for seed in range(3)]
    for run, steps in zip(runs, (1000, 2000, 3000), strict=True):
        run.__dict__["results"] = {"steps": steps, "stopped_early": steps < 3000, "epochs": steps // 1000}
    older = Run(tmp_path / "older")
    older.__dict__["results"] = {"epochs": 3}
    groups = [Group("A", {}, runs), Group("B", {}, [runs[0]]), Group("C", {}, [runs[2], older])]
    assert early_stops(groups) == [
        "Stopped early: 2 of the 3 runs of A, after 1,000 to 2,000 steps.",
        "Stopped early: 1 of the 1 runs of B, after 1,000 steps.",
    ]
