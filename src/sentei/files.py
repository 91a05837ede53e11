"""Whole or not at all: files and folders that are there complete, or as they were before.

And whose a folder is: of processes that share a disk, on one machine or many, one at a time.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file or a folder to, which then takes its place.

    If the block fails, what was at ``path`` is untouched and nothing is left beside it. An empty
    folder stays itself, and is filled: someone may be in it.

    Raises:
        OSError: It could not be moved there.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    _remove(unfinished)
    try:
        yield unfinished
        if path.is_dir() and unfinished.is_dir() and not any(path.iterdir()):
            for entry in unfinished.iterdir():
                shutil.move(entry, path / entry.name)
        else:
            _exchange(unfinished, path)
    finally:
        _remove(unfinished)


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


def write_once(path: Path, text: str) -> bool:
    """Write a file that is nobody's to change; False, and nothing, where it is there already.

    Of processes that do this at the same time, on any machine, one succeeds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8")
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links: readers may see it half written
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


class LeaseLost(Exception):
    """Another process may have taken a folder, because this one was silent for too long."""


class Lease:
    """The right of one process to work on a folder, until it leaves it, dies or stands still.

    A file that its holder keeps fresh from a thread. Who waits notes on its own clock when the file
    last changed, and takes it when that is ``seconds`` ago, or at once where it can see that the
    holder's process is gone. Nobody can stop a holder that was superseded: it has to ask
    :meth:`check` before it writes. No clocks are compared between machines.

    Args:
        path: The file, in the folder, which is made if missing.
        seconds: Without a sign of life, after which others may take it; the same for all.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self._file = SoftFileLease(path, lease_duration=seconds)
        self._often = min(1.0, seconds / 10)
        self._seen = 0.0

    def take(self) -> bool:
        """Whether it is this process's from now on; leave it by ``with``. To be asked repeatedly.

        Raises:
            ValueError: Another holds it for another number of seconds.
            OSError: The disk is out of reach or not writable.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file.acquire(blocking=False)
        except Timeout:
            return False
        except LeaseSettingsMismatch:
            owner = self._file.owner
            theirs = "another time" if owner is None else f"{owner.lease_duration:g} s"
            raise ValueError(
                f"{self.path} is held for {theirs} without a sign of life; all who share a folder "
                "must agree on that"
            ) from None
        self._seen = time.time()
        return True

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.release()

    def check(self) -> None:
        """Whether it is still this process's; looks at the disk once a second at most.

        Raises:
            LeaseLost: It is not, or nobody can say for so long that another may have it.
        """
        # By a clock that goes on while the machine sleeps: what stood still looks at once.
        if self._file.compromise is None and abs(time.time() - self._seen) < self._often:
            return
        for _ in range(3):  # who judges it expired may move it aside for a moment
            if self._is_ours():
                self._seen = time.time()
                return
            time.sleep(0.1)
        raise LeaseLost(f"{self.path}: another process may have taken this folder")

    def _is_ours(self) -> bool:
        if self._file.compromise is not None:
            return False
        try:
            self.path.read_bytes()
        except FileNotFoundError:
            return False
        except OSError:  # out of reach, for now: the thread counts how long
            return True
        owner = self._file.owner
        return owner is not None and owner.token == self._file.token


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
