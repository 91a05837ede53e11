"""A process that dies at its n-th write, or loses what it had not synced: kills and power cuts.

Writes are what Python is told of before it happens (audit events), the two writers that are no
Python (safetensors, torch), and fsync. Only those below the folder that is watched are counted, so
the n-th is the same in every repetition.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FILES = {
    "os.rename": ("rename", 2),
    "os.link": ("link", 2),
    "os.remove": ("remove", 1),
    "os.rmdir": ("rmdir", 1),
    "os.mkdir": ("mkdir", 1),
    "os.truncate": ("truncate", 1),
}
"""Changes that Python tells of, and how many of their arguments are paths."""


class Write(NamedTuple):
    """What is about to be done to a path."""

    kind: str
    path: str


def changed(event: str, arguments: tuple[object, ...]) -> tuple[str, list[str]]:
    """The kind of a change and the paths that it is to, whole; of another event, no paths."""
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & WRITING
        return "open", [os.fsdecode(path)] if writes and isinstance(path, str | bytes) else []
    if event not in FILES:
        return "", []
    kind, count = FILES[event]
    folders = arguments[count:][-count:]
    paths = []
    for path, folder in zip(arguments[:count], folders, strict=False):
        if isinstance(path, str | bytes | os.PathLike):
            name = os.fsdecode(os.fspath(path))
            relative = kind != "truncate" and isinstance(folder, int) and folder >= 0
            paths.append(f"{os.readlink(f'/proc/self/fd/{folder}')}/{name}" if relative else name)
    return kind, paths


class Trap:
    """Counts writes below a folder, and ends the process at one of them.

    Args:
        folder: What is watched.
        at: The number of the write, from 0; -1 only counts.
        how: ``before`` it; with the file that it opens left ``half`` written or ``empty``, as the
            next write begins; or by ``power``: nothing is lost but what was not synced, which is
            cut to half, or to nothing where ``at`` is odd.
    """

    def __init__(self, folder: Path, at: int = -1, how: str = "before") -> None:
        self.folder = os.path.realpath(folder)
        parent, name = os.path.split(self.folder)
        # what is written beside it takes its place, or that of a file in it
        self._watched = (f"{self.folder}/", f"{parent}/.{name}.")
        self.at = at
        self.how = how
        self.writes: list[Write] = []
        self._unsynced: dict[str, int] = {}
        self._torn: tuple[str, int] | None = None
        self._dying = False

    def arm(self) -> None:
        """From now on, in this process, which cannot disarm it."""
        sys.addaudithook(self._hear)
        _around_native_writers(lambda path: self._write("open", path))
        sync = os.fsync

        def fsync(file: int) -> None:
            number = file if isinstance(file, int) else file.fileno()
            path = os.readlink(f"/proc/self/fd/{number}")
            self._write("fsync", path)
            sync(file)
            self._unsynced.pop(path, None)

        os.fsync = fsync

    def end(self) -> None:
        """The process has come to its end; a file that was to be torn is torn now."""
        if self._torn:
            self._die()

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        kind, paths = changed(event, arguments)
        if paths:
            part = kind == "open" and not int(str(arguments[2])) & os.O_TRUNC
            self._write(kind, paths[0], paths[1:], whole=not part)

    def _write(self, kind: str, path: str, rest: Sequence[str] = (), *, whole: bool = True) -> None:
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if self._dying or not f"{path}/".startswith(self._watched):
            return
        if self._torn:
            self._die()
        number = len(self.writes)
        name = re.sub(r"\.\d+\.", ".N.", os.path.relpath(path, self.folder))
        self.writes.append(Write(kind, name))
        if number == self.at:
            if self.how in ("before", "power"):
                self._die()
            self._torn = (path, _size(path, whole))
        self._remember(kind, path, rest, whole)

    def _remember(self, kind: str, path: str, rest: Sequence[str], whole: bool) -> None:
        if kind == "open":
            there = _size(path, whole)
            self._unsynced[path] = min(there, self._unsynced.get(path, there))
        elif kind == "remove":
            self._unsynced.pop(path, None)
        elif kind == "rename":
            new = os.path.realpath(rest[0])
            for old in [one for one in self._unsynced if f"{one}/".startswith(f"{path}/")]:
                self._unsynced[new + old[len(path) :]] = self._unsynced.pop(old)

    def _die(self) -> None:
        self._dying = True
        if self._torn:
            path, before = self._torn
            _cut(path, before, self.how == "empty")
        elif self.how == "power":
            for path, before in self._unsynced.items():
                _cut(path, before, bool(self.at % 2))
        os.kill(os.getpid(), signal.SIGKILL)


def _size(path: str, whole: bool) -> int:
    """Bytes that a file keeps as it is opened to be written, ``whole`` or in part."""
    return os.path.getsize(path) if not whole and os.path.isfile(path) else 0


def _cut(path: str, before: int, wholly: bool) -> None:
    """Take away what was added to a file, or the half of it."""
    if os.path.isfile(path) and os.path.getsize(path) > before:
        added = os.path.getsize(path) - before
        os.truncate(path, before if wholly else before + added // 2)


def _around_native_writers(tell: Callable[[str], None]) -> None:
    if "torch" not in sys.modules:
        return
    import safetensors.torch
    import torch

    serialize = safetensors.torch.serialize_file
    writer = torch._C.PyTorchFileWriter

    def serialize_file(tensors: object, filename: object, *rest: object, **named: object) -> object:
        tell(str(filename))
        return serialize(tensors, filename, *rest, **named)

    def file_writer(target: object, *rest: object, **named: object) -> object:
        if isinstance(target, str):
            tell(target)
        return writer(target, *rest, **named)

    safetensors.torch.serialize_file = serialize_file
    torch._C.PyTorchFileWriter = file_writer
