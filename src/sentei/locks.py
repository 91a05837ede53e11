"""Whose a folder is: of processes that share a disk, on one machine or many, one at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from sentei.files import LOCK
from sentei.messages import SenteiWarning, printable


class FolderLock:
    """The right of one process to write to a folder, which ends with the process, however it ends.

    The kernel keeps it, on a file of the folder: no clock, and nothing that a dead process still
    holds. Enter it by ``with``; the folder is made if missing, and taken away again where nothing
    was written to it.

    Args:
        folder: The folder.
        shared: With others who share it and agree among themselves; not with an only owner.
        patience: Seconds to wait for another to end.
    """

    def __init__(self, folder: Path, *, shared: bool = False, patience: float = 0.0) -> None:
        self.folder = folder
        self._file = folder / LOCK
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._patience = patience
        self._number: int | None = None
        self._made: list[Path] = []

    def __enter__(self) -> FolderLock:
        """Take it.

        Raises:
            ValueError: Another process has it.
            OSError: The folder cannot be made or written to.
        """
        deadline = time.monotonic() + self._patience
        while not self.take():
            if time.monotonic() >= deadline:
                raise ValueError(
                    f"{self.folder}: {self._owner()} is at work in this folder; wait until it "
                    "ends, or stop it"
                )
            time.sleep(0.05)
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()

    def take(self) -> bool:
        """Whether it is this process's from now on, until :meth:`leave`.

        Raises:
            OSError: The folder cannot be made or written to.
        """
        while True:
            number = self._open()
            try:
                free = self._lock(number)
                if free and self._is_there(number):
                    self._number = number
                    self._sign()
                    return True
            finally:
                if self._number is None:
                    os.close(number)
            if not free:
                return False

    def leave(self) -> None:
        """Let go of it, and take away what was made for it."""
        if self._number is None:
            return
        # Others who share it still need the file: who can have it alone is the last.
        with suppress(OSError):
            fcntl.flock(self._number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.unlink()
        os.close(self._number)
        self._number = None
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()
        self._made = []

    def _open(self) -> int:
        missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._made += missing
            return os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise OSError(
                f"{self.folder}: cannot be written to ({error.strerror}); make it writable, or "
                "name another folder"
            ) from error

    def _sign(self) -> None:
        assert self._number is not None
        os.ftruncate(self._number, 0)
        with suppress(OSError):  # on a full disk it stays unsaid who the owner is
            os.write(self._number, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def _lock(self, number: int) -> bool:
        try:
            fcntl.flock(number, self._kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise
            warnings.warn(
                f"{self.folder}: its disk has no locks ({error.strerror}), so that nobody sees to "
                "it that only one process writes there: start no second one",
                SenteiWarning,
                stacklevel=2,
            )
        return True

    def _is_there(self, number: int) -> bool:
        """Whether the file is still the folder's: its last owner takes it away."""
        try:
            return os.path.samestat(os.fstat(number), os.stat(self._file))
        except FileNotFoundError:
            return False

    def _owner(self) -> str:
        try:
            with self._file.open("rb") as file:
                said = file.read(200).decode("utf-8", "replace")
        except OSError:
            said = ""
        return f"another process ({printable(said)})" if said else "another process"


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
            # What a power cut left empty is a holder of an older version to filelock, for ever;
            # what is no holder's at all it takes over.
            with suppress(OSError):
                if not self.path.stat().st_size:
                    os.truncate(self.path, 1)
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
