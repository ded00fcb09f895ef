"""The curves in TensorBoard's files, read with TensorBoard's own code."""

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.tensorboard.logger import RunLogger


def read(folder: Path) -> dict[str, Any]:
    events = EventAccumulator(str(folder))
    events.Reload()
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return scalars | {"graph": events.Tags()["graph"]}


def test_one_tag_for_a_metric_and_one_sub_run_for_a_curve(runs: list[Path]) -> None:
    for run in runs:
        results = json.loads((run / "results.json").read_text())
        events = {name: read(run / name) for name in ("", "train", "validation", "test")}
        assert events[""] == {"graph": False}  # no stray `epoch` or `hp_metric`
        charts = {"curves/accuracy", "curves/loss", "graph"}
        assert events["train"].keys() == charts | {"details/learning_rate", "details/epoch_seconds"}
        assert events["validation"].keys() == events["test"].keys() == charts
        for tag in ("accuracy", "loss"):
            curves = results["curves"][tag]
            for name in ("train", "validation"):
                assert events[name][f"curves/{tag}"] == [
                    (1, pytest.approx(curves[name]["1"])),
                    (2, pytest.approx(curves[name]["2"])),
                ]
            assert events["test"][f"curves/{tag}"] == [(2, pytest.approx(results["test"][tag], rel=1e-6))]
        assert events["train"]["details/learning_rate"] == [(1, pytest.approx(1e-3)), (2, pytest.approx(1e-3))]
        assert all(0 < seconds < 60 for _, seconds in events["train"]["details/epoch_seconds"])


def get(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def test_tensorboard_shows_the_curves_and_compares_runs_in_hparams(runs: list[Path], tensorboard: str) -> None:
    logdir = runs[0].parents[1]
    url = f"{tensorboard}/data/plugin"
    expected = {f"{name}/version_0/{sub}" for name in ("lenet5", "cnn") for sub in ("train", "validation", "test")}
    body = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
        "colParams": [],
        "startIndex": 0,
        "sliceSize": 10,
    }
    tags = get(f"{url}/scalars/tags")
    groups = get(f"{url}/hparams/session_groups", body)["sessionGroups"]
    assert len(groups) == 2
    assert {run for run, names in tags.items() if "curves/accuracy" in names} == expected
    for group in groups:
        run = logdir / group["sessions"][0]["name"]
        results = json.loads((run / "results.json").read_text())
        assert group["hparams"]["model"] == results["model"]
        assert group["hparams"]["lr"] == 1e-3
        assert group["hparams"]["val_size"] == 300
        values = {(m["name"]["group"], m["name"]["tag"]): m["value"] for m in group["metricValues"]}
        assert values["test", "curves/accuracy"] == pytest.approx(results["test"]["accuracy"], rel=1e-6)
        last = results["curves"]["loss"]["validation"]["2"]
        assert values["validation", "curves/loss"] == pytest.approx(last, rel=1e-6)


def test_trainings_that_start_together_never_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "net" / "version_4").mkdir(parents=True)
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: RunLogger(str(tmp_path), "net").log_dir, range(64)))
    assert sorted(folders) == sorted(str(tmp_path / "net" / f"version_{n}") for n in range(5, 69))
    assert all(Path(folder).is_dir() for folder in folders)


def test_other_logged_values_keep_their_name_and_step(tmp_path: Path) -> None:
    logger = RunLogger(str(tmp_path), "net")
    logger.log_metrics({"gradient_norm": 2.5, "epoch": 0}, step=49)
    logger.finalize("success")
    assert read(Path(logger.log_dir))["gradient_norm"] == [(49, 2.5)]


def test_resume_keeps_the_histograms_of_the_finished_epochs(tmp_path: Path) -> None:
    interrupted = RunLogger(str(tmp_path), "net", "version_0")
    for epoch in (1, 2, 3):
        interrupted.writer("train").add_histogram("weights", np.array([0.0, epoch]), epoch)
        interrupted.writer("train").add_scalar("curves/loss", 1.0, epoch)
    interrupted.finalize("success")
    resumed = RunLogger(str(tmp_path), "net", "version_0")
    resumed.resume({"learning_rate": {"train": {1: 0.1, 2: 0.1}}}, step=9)
    resumed.writer("train").add_histogram("weights", np.array([0.0, 4.0]), 3)
    resumed.finalize("success")
    events = EventAccumulator(str(tmp_path / "net" / "version_0" / "train"), {"histograms": 0})
    events.Reload()
    written = [(event.step, event.histogram_value.max) for event in events.Histograms("weights")]
    assert written == [(1, 1), (2, 2), (3, 4)]
    assert "curves/loss" not in events.Tags()["scalars"]


def test_resume_discards_later_values_and_restores_the_curves(tmp_path: Path) -> None:
    interrupted = RunLogger(str(tmp_path), "net", "version_0")
    for step in range(1, 9):
        interrupted.log_metrics({"gradient_norm": 1.0, "epoch": 0}, step=step)
    interrupted.log_epoch("validation", {"loss": 0.5}, 1)
    interrupted.log_epoch("validation", {"loss": 0.4}, 2)
    interrupted.finalize("success")
    time.sleep(1)  # TensorBoard reads the files in the order of their names, which begin with the second
    resumed = RunLogger(str(tmp_path), "net", "version_0")
    resumed.resume({"loss": {"validation": {1: 0.5}}}, step=5)
    for step in range(5, 8):
        resumed.log_metrics({"gradient_norm": 2.0, "epoch": 0}, step=step)
    resumed.finalize("success")
    folder = Path(resumed.log_dir)
    assert read(folder)["gradient_norm"] == [(step, 1.0 if step < 5 else 2.0) for step in range(1, 8)]
    assert read(folder / "validation")["curves/loss"] == [(1, 0.5)]
    assert resumed.curves["loss"]["validation"] == {1: 0.5}
