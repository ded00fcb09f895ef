"""The driver of the benchmarks, with contenders that only wait; and what docs/ shows of its results."""

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import Contender, one_pair, table
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


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="pins processes to cores, which needs Linux")
def test_a_pair_takes_turns_on_the_same_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    core = max(os.sched_getaffinity(0))
    contenders = [
        Contender([sys.executable, "-c", WAITING, seconds], tmp_path / seconds, {core}, 1, ROOT)
        for seconds in ("0.3", "0.1")
    ]
    slow, fast = one_pair(contenders, range(1, 3))
    assert slow["CPU time"] == pytest.approx(0.3, abs=0.05) and fast["CPU time"] == pytest.approx(0.1, abs=0.05)
    assert slow["wall time"] >= slow["CPU time"] + 0.2
    blocks = [((tmp_path / name).read_text().splitlines(), name) for name in ("0.3", "0.1")]
    for lines, _ in blocks:
        assert len(lines) == 3  # one to warm up
        assert all(line.endswith(f"cores {{{core}}} threads None") for line in lines)
    order = [name for _, name in sorted((float(line.split()[0]), name) for lines, name in blocks for line in lines)]
    assert order == ["0.3", "0.1", "0.3", "0.1", "0.1", "0.3"]


def test_the_page_shows_all_figures() -> None:
    report = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    assert table(report) in (ROOT / "docs" / "speed.md").read_text()
