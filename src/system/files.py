"""Atomic writing and locks of files."""

import errno
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from src.system.errors import UserError

# What NFS and some network or FUSE mounts answer to a lock.
CANNOT_LOCK = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL}


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


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, see `replace_when_whole`."""
    with replace_when_whole(path) as file:
        file.write(content)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, see `replace_when_whole`. NaN and infinity, which JSON does not have, become null."""
    write_whole(path, f"{json.dumps(_finite(content), indent=1, allow_nan=False)}\n".encode())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def local_path(text: str | Path) -> str:
    """Expand ``~`` and ``$VAR`` in a path. Raises a `UserError` for a URL such as ``s3://bucket/folder``."""
    if re.match(r"[A-Za-z][\w+.-]+:/", str(text)):  # `Path` has one slash
        raise UserError(f"{text} is not a path on this machine. Copy or mount it, and name the folder.")
    return str(Path(os.path.expandvars(text)).expanduser())


@contextmanager
def locked(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock file `path`. Where the file system has no locks, print that and go on.

    Args:
        path: The lock file, in a folder that exists.
        timeout: Seconds to wait for another process, -1 for ever.

    Raises:
        Timeout: Another process holds the lock.
        OSError: The file cannot be written.
    """
    lock = FileLock(path, timeout=timeout)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in CANNOT_LOCK:  # that of a Timeout is None
            raise
        print(f"{path.parent} cannot be locked ({error.strerror}). Use it from one process only.", file=sys.stderr)
    try:
        yield
    finally:
        lock.release()
