"""The command in a process of its own, without the seconds in which torch is imported.

This process has imported everything; a child is forked for each command, with its own folder, its
own terminal (three files), its own limits. ``OMP_NUM_THREADS=1`` and no computing here: a fork of
a process with threads would not be safe.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shlex
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .trap import Trap
from .watch import watch

MEMORY = 1536
"""MiB that a process may take."""

PIPE = 1 << 20

DATA_LIMIT = 6 << 30
"""Bytes at which it is stopped, lest it takes those of others."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended: how, and what it said."""

    words: tuple[str, ...]
    code: int
    seconds: float
    memory: int
    out: str
    err: str
    notes: tuple[str, ...]
    hung: bool

    @property
    def refused(self) -> bool:
        """Whether it ended with an error that it knows."""
        return self.code in (1, 2)

    @property
    def message(self) -> str:
        """What it said of its error."""
        return re.sub(r"\s+", " ", self.err).strip()

    def __str__(self) -> str:
        return f"sentei {' '.join(map(str, self.words))} -> {self.code}: {self.message[-300:]}"


@dataclass
class Child:
    """A command that runs."""

    words: tuple[str, ...]
    pid: int
    logs: Path
    pipes: tuple[int, ...] = ()
    begun: float = field(default_factory=time.monotonic)

    def alive(self) -> bool:
        """Whether it has not ended; leaves its status to be asked for."""
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return ended is None

    def signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.alive():
            os.kill(self.pid, number)

    def wait(self, seconds: float) -> Ended:
        """Its end; by force after ``seconds``."""
        hung = False
        pause = 0.002
        while self.alive():
            if time.monotonic() - self.begun > seconds:
                hung = True
                break
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        _end_group(self.pid)
        _, status, used = os.wait4(self.pid, 0)
        for name, pipe in zip(("out", "err"), self.pipes, strict=False):
            (self.logs / name).write_bytes(os.read(pipe, PIPE))
            os.close(pipe)
        out, err, notes = (
            (self.logs / name).read_bytes().decode("utf-8", "backslashreplace")
            for name in ("out", "err", "notes")
        )
        return Ended(
            self.words,
            os.waitstatus_to_exitcode(status),
            time.monotonic() - self.begun,
            used.ru_maxrss // 1024,
            out,
            err,
            tuple(dict.fromkeys(notes.splitlines())),
            hung,
        )


def start(
    words: Sequence[object],
    folder: Path,
    allowed: Sequence[Path],
    *,
    trap: Trap | None = None,
    file_size: int | None = None,
    env: Mapping[str, str] | None = None,
    after: Callable[[], None] = lambda: None,
) -> Child:
    """Begin ``sentei WORDS`` in a folder.

    Args:
        words: The arguments.
        folder: Where it runs; ``home``, ``tmp`` and ``logs`` are made there.
        allowed: What it may write to, besides ``tmp`` and what libraries keep.
        trap: What ends it at a write.
        file_size: Bytes beyond which no file may grow: a full disk.
        env: Further environment.
        after: Done in the process at its end.
    """
    logs = folder / "logs"
    for place in (logs, folder / "home", folder / "tmp"):
        place.mkdir(parents=True, exist_ok=True)
    logs = logs / str(len(list(logs.iterdir())))
    logs.mkdir()
    typed = tuple(str(word) for word in words)
    (logs / "words").write_text(shlex.join(typed), "utf-8", "surrogateescape")
    sys.stdout.flush()
    sys.stderr.flush()
    # A full disk is one of the run's folder, not of the terminal: then that is no file.
    pipes = [os.pipe() for _ in range(2)] if file_size is not None else []
    pid = os.fork()
    if pid:
        for _, write in pipes:
            os.close(write)
        return Child(typed, pid, logs, tuple(read for read, _ in pipes))
    try:
        os.setsid()
        notes = _terminal(logs, [write for _, write in pipes])
        os.chdir(folder)
        tempfile.tempdir = None
        os.environ.update(HOME=str(folder / "home"), TMPDIR=str(folder / "tmp"), **(env or {}))
        cache = Path(os.environ["SENTEI_CACHE"])
        kept = [folder / "tmp", cache, Path(os.environ["MPLCONFIGDIR"]), logs]
        watch(notes, [*allowed, *kept], cache.parent)
        if trap:
            trap.arm()
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        resource.setrlimit(resource.RLIMIT_DATA, (DATA_LIMIT, DATA_LIMIT))
        if typed[:1] != ("report",):
            _leave_out_charts()
        code = _command(typed)
        threading._shutdown()
        after()
        if trap:
            trap.end()
            trap.at = -1
            (logs / "writes").write_text("\n".join("\t".join(write) for write in trap.writes))
    except BaseException:  # of this harness: the command's own are its traceback
        traceback.print_exc()
        code = 70
    os._exit(code)


def run(words: Sequence[object], folder: Path, allowed: Sequence[Path], **options: object) -> Ended:
    """``sentei WORDS`` until its end; ``seconds`` is how long that may be."""
    seconds = float(options.pop("seconds", 30))  # type: ignore[arg-type]
    return start(words, folder, allowed, **options).wait(seconds)  # type: ignore[arg-type]


def _leave_out_charts() -> None:
    """Drawing takes longer than the whole of so short a run; ``report`` draws."""
    try:
        from sentei.report import charts
    except ModuleNotFoundError:
        return

    def chart(key: str, title: str, caption: str, *drawn: object, **how: object) -> charts.Chart:
        return charts.Chart(title, caption, "<svg></svg>")

    charts.chart = chart


def _command(words: tuple[str, ...]) -> int:
    """Its exit status, as the interpreter would make it."""
    from sentei.cli import main

    sys.argv = ["sentei", *words]
    try:
        main()
        code: object = 0
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = 120
    if isinstance(code, str):
        print(code, file=sys.stderr)
        return 1
    return int(code or 0)  # type: ignore[call-overload]


def _terminal(logs: Path, pipes: Sequence[int]) -> int:
    """Standard streams into files, or pipes; the number of one more file, for notes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    out, err, notes = (os.open(logs / name, flags) for name in ("out", "err", "notes"))
    out, err = pipes or (out, err)
    for pipe in pipes:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
    nothing = os.open("/dev/null", os.O_RDONLY)
    for number, file in enumerate((nothing, out, err)):
        os.dup2(file, number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", errors="strict", closefd=False)
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    return notes


def _end_group(pid: int) -> None:
    """A child and all that it has started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
