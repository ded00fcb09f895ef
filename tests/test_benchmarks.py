"""The driver of the benchmarks, with contenders that only wait; and what docs/ shows of its results."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import benchmarks.__main__ as driver
from benchmarks.__main__ import Contender, one_pair, table
from src.system.machine import cpu_name
from tests.conftest import ROOT

WAITING = """
import os, sys, time
from benchmarks.turns import Turns

turns = Turns()
while True:
    turns.next()
    print(f"{time.monotonic()} cores {os.sched_getaffinity(0)} threads {os.environ.get('OMP_NUM_THREADS')}", flush=True)
    busy_until = time.process_time() + float(sys.argv[1])
    while time.process_time() < busy_until:
        pass
    time.sleep(0.2)
"""


pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="pins processes to cores; needs Linux")


def test_a_pair_takes_turns_on_the_same_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    core = max(os.sched_getaffinity(0))
    contenders = [
        Contender([sys.executable, "-c", WAITING, seconds], tmp_path / seconds, {core}, 1, ROOT)
        for seconds in ("0.06", "0.02")
    ]
    slow, fast = one_pair(contenders, range(1, 3))
    assert slow["CPU time"] == pytest.approx(0.06, abs=0.01) and fast["CPU time"] == pytest.approx(0.02, abs=0.01)
    assert slow["wall time"] >= slow["CPU time"] + 0.2
    blocks = [((tmp_path / name).read_text().splitlines(), name) for name in ("0.06", "0.02")]
    for lines, _ in blocks:
        assert len(lines) == 3  # one to warm up
        assert all(line.endswith(f"cores {{{core}}} threads None") for line in lines)
    order = [name for _, name in sorted((float(line.split()[0]), name) for lines, name in blocks for line in lines)]
    assert order == ["0.06", "0.02", "0.06", "0.02", "0.02", "0.06"]


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
        arguments = ["lenet5", part, "--cores=1", "--pairs=2", "--times=1", f"--output={tmp_path}"]
        monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
        driver.main()
    before = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    report = json.loads((tmp_path / "benchmarks.json").read_text())
    assert all(report[name] == block for name, block in before.items() if name != cpu_name())
    figures = report[cpu_name()]["networks"]["lenet5"]
    loop, fit = (figures[f"{name}, 1 core"]["CPU time"] for name in ("hand-written loop", "fit of other"))
    assert loop["ratio"] == pytest.approx(3, rel=0.2) and fit["ratio"] == pytest.approx(1, rel=0.2)
    assert loop["seconds of an epoch"] == pytest.approx([0.06 * 469 / 50, 0.02 * 469 / 50], rel=0.2)
    assert page.read_text() == f"Before\n<!-- python -m benchmarks -->\n\n{table(report)}\n<!-- end -->\nAfter\n"
    assert (tmp_path / "benchmarks.png").stat().st_size
    assert (other / "was_run").exists()


def test_the_page_shows_all_figures() -> None:
    report = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    assert table(report) in (ROOT / "docs" / "speed.md").read_text()
