"""Atomic writing of files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replace_when_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file for writing, and rename it to `path` when it is complete.

    The temporary file ``.<name>.part`` is in the same folder and is synced before the renaming. So `path`
    always holds the old content or the new content, never a part of it. Only one process may write at a time.
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
