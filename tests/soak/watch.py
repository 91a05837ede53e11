"""What a process does that it must not: run something, call somewhere, write elsewhere."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .trap import changed

RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn")
CALLS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
DEVICES = ("/dev/", "/proc/")
KNOWN = ("uname", "lscpu", "ldconfig", "git", "gcc", "cc", "sentei.compare.child")
"""Programs that libraries ask about the machine, and Sentei's own."""


def watch(notes: int, allowed: Sequence[Path], mine: Path) -> None:
    """Write down from now on, on the file ``notes``, what is not to be done.

    Outside of the harness's own folder it is not done either: the machine is to outlive this.

    Args:
        notes: Number of an open file.
        allowed: Folders and files that may be written to.
        mine: The harness's folder.
    """
    roots = tuple(f"{os.path.realpath(path)}/" for path in allowed)
    # what takes the place of a file or folder when it is whole is written beside it
    beside = tuple(f"{root.parent}/.{root.name}." for root in map(Path, roots))

    def inside(path: str, kind: str) -> bool:
        whole = f"{os.path.realpath(path)}/"
        above = kind == "mkdir" and any(root.startswith(whole) for root in roots)
        return above or whole.startswith((*roots, *beside))

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event in RUNS:
            words = str(arguments[:2])
            if not any(name in words for name in KNOWN):
                os.write(notes, f"executed: {event} {words[:300]!r}\n".encode())
        elif event in CALLS:
            os.write(notes, f"connected: {event} {str(arguments)[:300]!r}\n".encode())
        else:
            kind, paths = changed(event, arguments)
            for path in paths:
                if kind != "open" or not path.startswith(DEVICES):
                    tell(path, kind)

    def tell(path: str, kind: str) -> None:
        if not inside(path, kind):
            os.write(notes, f"written outside: {path!r}\n".encode())
            if not f"{os.path.realpath(path)}/".startswith(f"{os.path.realpath(mine)}/"):
                raise PermissionError(errno.EACCES, "refused by the harness", path)

    sys.addaudithook(hear)
