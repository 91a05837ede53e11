"""Threads of the engine's own, that run one function side by side.

They belong to the process, not to an engine, and sleep when there is nothing to do. Torch's threads
are not touched.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

Work = Callable[[int], None]


class _Team:
    """One function that some threads run, and what became of it."""

    def __init__(self, work: Work, size: int) -> None:
        self.work, self._left = work, size
        self._lock, self._done = threading.Lock(), threading.Event()
        self.error: BaseException | None = None

    def run(self, number: int) -> None:
        try:
            self.work(number)
        except BaseException as error:
            self.error = error
        with self._lock:
            self._left -= 1
            if not self._left:
                self._done.set()

    def wait(self) -> None:
        """Until all have ended: what they work on must not go before. Then an interrupt goes on."""
        interrupt: BaseException | None = None
        while not self._done.is_set():
            try:
                self._done.wait()
            except BaseException as error:  # of another signal's handler
                interrupt = error
        if interrupt or self.error:
            raise interrupt or self.error  # type: ignore[misc]


class Threads:
    """Sleeping threads; as many as were ever asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._queue: SimpleQueue[tuple[_Team, int]] = SimpleQueue()
        self._count = 0

    def together(self, work: Work, size: int) -> None:
        """Run ``work(0)`` here and ``work(1)`` ... ``work(size - 1)`` beside it; wait for all.

        Members of a team may wait for one another: they are handed out whole, so that each of them
        is begun before any of the next team.
        """
        if size == 1:
            work(0)
            return
        with _uninterrupted():
            self._together(_Team(work, size), size)

    def _together(self, team: _Team, size: int) -> None:
        with self._lock:
            if self._process != os.getpid():  # a fork has no threads but its own
                self._reset()
            while self._count < size - 1:
                threading.Thread(target=self._serve, args=(self._queue,), daemon=True).start()
                self._count += 1
            for number in range(1, size):
                self._queue.put((team, number))
        team.run(0)
        team.wait()

    @staticmethod
    def _serve(queue: SimpleQueue[tuple[_Team, int]]) -> None:
        while True:
            team, number = queue.get()
            team.run(number)
            del team


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until a team has ended: a member that it took away is waited for for ever."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # other threads are not interrupted; nor is anybody where it is not Python's to do
        return
    caught: list[Any] = []
    signal.signal(signal.SIGINT, lambda *some: caught.append(some))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if caught:
            before(*caught[0])


def available() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


threads = Threads()
