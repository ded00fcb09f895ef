"""`python -m src fit --config configs/lenet5.yaml`: see `src.cli.main`."""

import os
import signal
import sys
from types import FrameType

from src.cli.overview import answer


def stop(number: int, frame: FrameType | None) -> None:
    """End the process at once. An exception, raised inside an import, could be caught there and cause others."""
    os.write(sys.stderr.fileno(), b"Stopped.\n")
    os._exit(128 + number)


if __name__ == "__main__":
    if (code := answer(sys.argv[1:])) is not None:
        sys.exit(code)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a script ignores it for what runs in the background
        signal.signal(signal.SIGINT, stop)  # until the imports, which take five seconds, have ended
    from src.cli.main import main

    sys.exit(main())
