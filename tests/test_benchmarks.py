"""The driver of the benchmarks, with contenders that only wait and count; and what docs/ shows of its results."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

import benchmarks.__main__ as driver
from benchmarks.__main__ import Contender, one_round, table
from src.system.machine import cpu_name
from tests.conftest import ROOT

WAITING = """
import os, sys, time
from benchmarks.turns import Turns

clock = 0
time.process_time = lambda: clock  # exact on every machine

turns, order = Turns(), ""
while True:
    order = turns.next(**{"device time": 0.05} if order else {})
    print(f"{time.monotonic()} cores {os.sched_getaffinity(0)} threads {os.environ.get('OMP_NUM_THREADS')}", flush=True)
    clock += float(sys.argv[1])
    time.sleep(0.2)
"""


needs_linux = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the benchmarks need Linux")


@needs_linux
def test_contenders_take_turns_on_the_same_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    core = max(os.sched_getaffinity(0))
    both = [
        Contender([sys.executable, "-c", WAITING, seconds], tmp_path / seconds, {core}, 1, ROOT)
        for seconds in ("0.06", "0.02")
    ]
    slow, fast = one_round(both, range(1, 3), busy=True)
    assert (slow["CPU time"], fast["CPU time"]) == (pytest.approx(0.06), pytest.approx(0.02))
    assert min(slow["wall time"], fast["wall time"]) >= 0.2
    assert slow["busy"] == 0.05 / slow["wall time"]
    blocks = [((tmp_path / name).read_text().splitlines(), name) for name in ("0.06", "0.02")]
    for lines, _ in blocks:
        assert len(lines) == 4  # one to warm up, one under the profiler
        assert all(line.endswith(f"cores {{{core}}} threads None") for line in lines)
    order = [name for _, name in sorted((float(line.split()[0]), name) for lines, name in blocks for line in lines)]
    assert order == ["0.06", "0.02", "0.06", "0.02", "0.02", "0.06", "0.06", "0.02"]


@needs_linux
@pytest.mark.parametrize("name", ["fit", "usual", "graph", "compiled"])
def test_contenders_report_their_blocks(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Those of a GPU too, small and on the CPU: all but the device is tried."""
    from benchmarks import contenders  # its `resource` is missing on Windows

    reports, its_end = os.pipe()
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("REPORTS", str(its_end))
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("\nprofile\n"))
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(contenders, "TRAIN_STEPS", 3)
    monkeypatch.setattr(contenders, "VAL_STEPS", 2)
    monkeypatch.setattr(contenders, "LIMITS", contenders.LIMITS | {"limit_train_batches": 3, "limit_val_batches": 2})
    with torch.compiler.set_stance("force_eager"), pytest.raises(SystemExit) as ended:
        getattr(contenders, name)("lenet5")
    assert ended.value.code == 0
    ready, plain, profiled = map(json.loads, os.read(reports, 10_000).splitlines())
    os.close(reports)
    assert "training steps" not in ready
    assert 0 < plain["training steps"] < plain["wall time"]
    assert 0 < profiled["device time"] < profiled["wall time"]  # of one thread


@needs_linux
def test_figures_are_added_to_those_of_other_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fit` is busy three times as long as the loop, and as long as the `fit` of another checkout."""
    page, other = tmp_path / "speed.md", tmp_path / "other"
    shutil.copy(ROOT / "docs" / "benchmarks.json", tmp_path)
    page.write_text("Before\n<!-- python -m benchmarks -->\n<!-- end -->\nAfter\n")
    (other / "benchmarks").mkdir(parents=True)
    turns = (ROOT / "benchmarks" / "turns.py").read_text()
    (other / "benchmarks" / "turns.py").write_text(f"{turns}\nopen('was_run', 'w').close()\n")
    program = f"import sys; sys.argv[1] = {{'fit': '0.06', 'hand_written': '0.02'}}[sys.argv[1]]\n{WAITING}"
    monkeypatch.setattr(driver, "OURS", [sys.executable, "-c", program])
    monkeypatch.chdir(ROOT)
    for part in ("--parts=loop", f"--against={other}"):
        arguments = ["lenet5", part, "--cores=1", "--rounds=2", "--times=1", f"--output={tmp_path}"]
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        driver.main()
    before = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    report = json.loads((tmp_path / "benchmarks.json").read_text())
    assert all(report[name] == block for name, block in before.items() if name != cpu_name())
    figures = report[cpu_name()]["networks"]["lenet5"]
    loop, fit = (figures[f"{name}, 1 core"]["CPU time"] for name in ("hand-written loop", "fit of other"))
    assert loop["ratio"] == pytest.approx(3) and fit["ratio"] == pytest.approx(1)
    assert loop["of both"] == pytest.approx([0.06 * 469 / 50, 0.02 * 469 / 50])
    assert page.read_text() == f"Before\n<!-- python -m benchmarks -->\n\n{table(report)}\n<!-- end -->\nAfter\n"
    assert (tmp_path / "benchmarks.png").stat().st_size
    assert (other / "was_run").exists()


def test_the_page_shows_all_figures() -> None:
    report = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    assert table(report) in (ROOT / "docs" / "speed.md").read_text()
