"""A file gets its name only when it is complete; a lock keeps others out where the file system has locks."""

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest
from filelock import Timeout

from src.system.files import locked, replace_when_whole, write_json


def test_replaces_the_file_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replace_when_whole(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replace_when_whole(path) as file:
        file.write(b"ne")
        _ = 1 / 0
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_null_for_what_is_no_number(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    path = tmp_path / "file.json"
    write_json(path, {"a": [1.5, float("nan"), (float("inf"), "NaN")], "b": {"c": -float("inf"), "\udce9": 2}})
    content = path.read_text(encoding="utf-8")
    assert content.endswith("}\n")
    expected = {"a": [1.5, None, [None, "NaN"]], "b": {"c": None, "\udce9": 2}}
    assert json.loads(content, parse_constant=refuse) == expected


def test_a_lock_keeps_others_out(tmp_path: Path) -> None:
    with locked(tmp_path / ".lock"), pytest.raises(Timeout), locked(tmp_path / ".lock", timeout=0):
        pass
    with locked(tmp_path / ".lock", timeout=0):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_used_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / ".lock", timeout=0):
        entered = True
    assert entered
    assert (
        f"{tmp_path} cannot be locked ({os.strerror(number)}). Use it from one process only." in capsys.readouterr().err
    )


def test_a_lock_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), locked(tmp_path / "file" / ".lock", timeout=0):
        pass
