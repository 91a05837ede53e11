"""Whole or not at all: files and folders that are there complete, or as they were before.

Also after a power cut: what takes its place is on the disk before it does.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sentei.messages import cut, printable

LOCK: Final = ".lock"
"""File of a folder by which its owner keeps it."""

_LONGEST_NAME: Final = 255
"""Bytes of a name, on most disks."""

_UNFINISHED: Final = (".*.unfinished", ".*.replaced")
"""What a process that was killed may leave beside what it was writing."""


def expanded(path: str | Path) -> Path:
    """A path with the home folder where a ``~`` begins it, as a shell would have it.

    A shell leaves that to us in ``--out=~/runs``, and Python everywhere.
    """
    return Path(os.path.expanduser(path))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file or a folder to, which then takes its place.

    If the block fails, what was at ``path`` is untouched and nothing is left beside it. An empty
    folder stays itself, and is filled: someone may be in it. All of it is on the disk when the
    block is left.

    Raises:
        OSError: It could not be moved there.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    _remove(unfinished)
    try:
        yield unfinished
        sync(unfinished)
        if path.is_dir() and unfinished.is_dir() and not any(path.iterdir()):
            for entry in unfinished.iterdir():
                shutil.move(entry, path / entry.name)
        else:
            _exchange(unfinished, path)
        _sync_one(path.parent)
    finally:
        _remove(unfinished)


def sync(path: Path) -> None:
    """Have the disk keep a file, or a folder with all that is in it, through a power cut.

    Raises:
        OSError: The disk is full, or fails.
    """
    if path.is_dir():
        for inner in path.iterdir():
            if not inner.is_symlink():
                sync(inner)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        # Some disks of other machines sync no folder, and say so by one of these.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF) or not path.is_dir():
            raise
    finally:
        os.close(number)


def leftovers(folder: Path) -> list[Path]:
    """What processes that were killed have left in a folder: half-written, or locks of theirs."""
    patterns = (*_UNFINISHED, LOCK)
    return [path for pattern in patterns for path in folder.glob(pattern)]


def sweep(folder: Path) -> None:
    """Remove what processes that were killed have left half-written; for a folder's one owner."""
    for pattern in _UNFINISHED:
        for path in folder.glob(pattern):
            _remove(path)


def _exchange(new: Path, path: Path) -> None:
    """Move ``new`` to ``path``; a folder that is there goes only once the new one is in place."""
    if not path.is_dir():
        os.replace(new, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.replaced")
    os.replace(path, old)
    try:
        os.replace(new, path)
    except OSError:
        os.replace(old, path)
        raise
    shutil.rmtree(old)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Bytes of a file's name that are no Unicode are written as JSON's escapes, and read as they were.

    Raises:
        OSError: It could not be written; what was there is as it was.
    """
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def check_place(folder: Path) -> None:
    """Refuse a place where no folder can be made, or none that weights can be written to.

    Raises:
        ValueError: Its name is too long or of bytes that are no Unicode, or a file, a link that
            leads nowhere or a folder that may not be written to is in the way.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in str(folder)):
        raise ValueError(f"{printable(str(folder))}: its name is not UTF-8; name another folder")
    path = folder.absolute()
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
        raise ValueError(f"{cut(str(folder), 100)}: its name is too long; name another folder")
    there = next(one for one in (path, *path.parents) if os.path.lexists(one))
    if not there.is_dir():
        what = "a link that leads nowhere" if there.is_symlink() else "no folder"
        raise ValueError(f"{folder}: {there} is {what}; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: {there} cannot be written to; name another folder")


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file in UTF-8, whole or not at all.

    Raises:
        OSError: It could not be written; what was there is as it was.
    """
    data = f"{line}\n".encode()
    with path.open("ab", buffering=0) as file:
        before = file.tell()
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            file.truncate(before)
            raise


def write_once(path: Path, text: str) -> bool:
    """Write a file that is nobody's to change; False, and nothing, where it is there already.

    Of processes that do this at the same time, on any machine, one succeeds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8")
        sync(draft)
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links: readers may see it half written
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            sync(path)
        _sync_one(path.parent)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
