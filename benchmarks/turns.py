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
        self.started = self._now()

    def next(self) -> None:
        """End the block, if one has begun, and wait for the turn to begin another."""
        seconds = {name: now - self.started[name] for name, now in self._now().items()}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # bytes
        print(json.dumps(seconds | {"peak memory": peak}), file=self.reports)
        if not sys.stdin.readline():
            os._exit(0)  # all blocks are done
        self.started = self._now()

    def _now(self) -> dict[str, float]:
        return {"wall time": time.perf_counter(), "CPU time": time.process_time()}  # the latter of all threads
