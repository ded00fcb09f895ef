"""Signals that end a command: Ctrl-C, and what clusters and terminals send."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, what a cluster sends, a closed terminal, SLURM before its time limit; Windows has only the first two.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]

Handler = Callable[[int, FrameType | None], None]


class Interrupted(BaseException):
    """A signal ended the program; a training was saved first. Not an error, so no `except Exception` catches it."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def set_handler(handler: Handler) -> None:
    """Set the handler of all `SIGNALS` that are not ignored, as nohup ignores SIGHUP."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def temporary_handler(handler: Handler) -> Iterator[None]:
    """As `set_handler`. Restore the handlers at the end."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    set_handler(handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def signals_raise_interrupted() -> Iterator[None]:
    """Raise `Interrupted` on a signal. A second one ends the process at once.

    During a training, `src.training.stopping.Stopping` handles the signals.
    """
    received = False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal received
        if received:
            os._exit(128 + number)
        received = True
        raise Interrupted(number, "Stopped.")

    with temporary_handler(end):
        yield
