"""Files that appear under their name only when they are whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replace_when_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only after every byte is on the disk.

    The bytes go to ``.<name>.part`` in the same folder, are synced and then renamed, so `path` holds
    the old content or the new one and never a part of it. One writer per path at a time.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
