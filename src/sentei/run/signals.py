"""Signals that ask a run to stop: Ctrl-C, and what clusters and terminals send before they end it.

While training lasts a signal is noted, and training stops with a checkpoint at its next step. At
any other time it ends the work at once: all that was written is whole.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_TOGETHER: Final = 1.0
"""Seconds in which signals are one: a terminal sends it, and so does the launcher beside us."""


class Stopped(KeyboardInterrupt):
    """A signal asked for the end; ``number`` is which."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


def status(number: int) -> int:
    """The exit status of a process that a signal ended, as shells have it."""
    return 128 + number


class Listener:
    """Notes the first of the signals that ask for the end; the next one is not held back."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0

    @property
    def heard(self) -> bool:
        """Whether one has come."""
        return self.number is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note signals, while the block lasts."""
        with _handling(self._hear):
            yield

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number, self._since = number, time.monotonic()
        elif time.monotonic() - self._since > _TOGETHER:
            raise Stopped(number)


@contextmanager
def raising() -> Iterator[None]:
    """End the block with :class:`Stopped` at a signal.

    Raises:
        Stopped: One came.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handling(end):
        yield


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Have signals handled, where this is the thread that alone can say so."""
    before: dict[int, Any] = {}
    terminals = [number for number in range(3) if os.isatty(number)]

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:  # the terminal is gone, and whoever writes to it fails
            nowhere = os.open(os.devnull, os.O_RDWR)
            for terminal in terminals:
                os.dup2(nowhere, terminal)
            os.close(nowhere)
        handler(number, frame)

    try:
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            before[number] = signal.signal(number, handle)
    except ValueError:  # another thread, which receives none
        yield
        return
    try:
        yield
    finally:
        for taken, earlier in before.items():
            signal.signal(taken, earlier)
