"""The command in a process of its own, forked from this one: torch is not imported once more."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from sentei import cli

FORK = multiprocessing.get_context("fork")


class Command:
    """A command that runs.

    Args:
        words: What is typed after ``sentei``.
        before: Called in the process first.
    """

    def __init__(self, *words: object, before: Callable[[], object] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._said = [Path(self._folder.name, name) for name in ("out", "err")]
        arguments = ([str(word) for word in words], self._said, before)
        self._process = FORK.Process(target=_run, args=arguments)
        self._process.start()
        self.code: int | None = None
        self.out = self.err = ""

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self._process.pid
        os.kill(self._process.pid, number)

    def wait(self, seconds: float = 300) -> Command:
        """Until it has ended, with the ``code``, and what it said in ``out`` and ``err``."""
        self._process.join(seconds)
        self.code = self._process.exitcode
        if self.code is None:
            self._process.kill()
            self._process.join()
        self.out, self.err = (path.read_text() for path in self._said)
        self._folder.cleanup()
        assert self.code is not None, f"did not end in {seconds} s: {self.out} {self.err}"
        return self


def _run(words: list[str], said: list[Path], before: Callable[[], object] | None) -> None:
    for number, path in enumerate(said, start=1):
        with path.open("w") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.resetwarnings()  # of which pytest makes errors
    sys.argv = ["sentei", *words]
    if before is not None:
        before()
    cli.main()
