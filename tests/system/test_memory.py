"""Freed memory is kept, so that its next allocation needs no page faults."""

import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = """
import resource
from src.system.memory import keep_freed_pages
{}
for number in range(12):
    if number == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [b"x" * 2**23 for _ in range(8)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(call: str) -> int:
    command = [sys.executable, "-c", SCRIPT.format(call)]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting exists in glibc only")
def test_freed_blocks_are_reused_without_page_faults() -> None:
    assert page_faults("keep_freed_pages()") < page_faults("") / 10
