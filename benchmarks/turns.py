"""Take turns: a contender does one block of work each time it is told to, and tells how long it took.

Only the standard library is needed here: the Keras program runs in an environment of its own.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable


class Turns:
    """The side of a contender. Between two calls of `next` lies one block.

    Args:
        wait: Called before the clock is read, to wait for a device.
    """

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self.wait = wait
        self.reports = os.fdopen(int(os.environ["REPORTS"]), "w", buffering=1)
        self.steps: dict[str, float] = {}
        self.started = self._now()

    def end_of_steps(self) -> None:
        """Call it in a block after the last training step, before the validation."""
        self.steps = {"training steps": self._now()["wall time"] - self.started["wall time"]}

    def next(self, **more: float) -> str:
        """End the block, if one has begun, and wait for the turn to begin another.

        Args:
            **more: What else is reported of the block.

        Returns:
            What the driver says about the next block.
        """
        seconds = {name: now - self.started[name] for name, now in self._now().items()}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # bytes
        print(json.dumps(seconds | self.steps | {"peak memory": peak} | more), file=self.reports)
        if not (line := sys.stdin.readline()):
            os._exit(0)  # all blocks are done
        self.started = self._now()
        return line.strip()

    def _now(self) -> dict[str, float]:
        self.wait()
        return {"wall time": time.perf_counter(), "CPU time": time.process_time()}  # the latter of all threads
