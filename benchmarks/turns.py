"""Take turns: a contender does one block of work each time it is told to, and tells how long it took.

Only the standard library is needed here: the Keras program runs in an environment of its own.
"""

import json
import os
import resource
import sys
import time


class Turns:
    """The side of a contender. Between two calls of `next` lies one block."""

    def __init__(self) -> None:
        self.reports = os.fdopen(int(os.environ["REPORTS"]), "w", buffering=1)
        self.started: float | None = None

    def next(self) -> None:
        """End the block, if one has begun, and wait for the turn to begin another."""
        ended = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # bytes
        seconds = None if self.started is None else ended - self.started
        print(json.dumps({"seconds": seconds, "peak_memory": peak}), file=self.reports)
        if not sys.stdin.readline():
            os._exit(0)  # all blocks are done
        self.started = time.perf_counter()
