"""What a machine of a cluster does: one run, as a worker does it."""

from __future__ import annotations

import os
import signal
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from ray.util.queue import Queue

from sentei._version import VERSION
from sentei.compare.execute import Watch
from sentei.compare.plan import Plan
from sentei.compare.runs import Runs
from sentei.compare.worker import Event, What, Worker
from sentei.messages import SenteiWarning
from sentei.models.quiet import quiet_transformers
from sentei.run.saving import SaveError
from sentei.run.training import Interrupted

Lines = Callable[[Callable[[str], None]], Watch]
"""Makes what watches a run, out of who hears its lines; a function of a module, not a lambda."""

SIGHT: Final = 20.0
"""Seconds that a new file may take to be seen on another machine."""


class Job(NamedTuple):
    """What a task has to know besides the name of its run."""

    version: str
    plan: Plan
    out: Path
    mark: Path
    driver: str
    queue: Queue
    lines: Lines | None
    launch: str | None
    patience: float
    keep: bool
    gpus: float


class Made(NamedTuple):
    """How a task ended: ``free`` is whether nobody else was at its run."""

    free: bool
    events: tuple[Event, ...] = ()


class Refusal(NamedTuple):
    """An error that ends the comparison, as what it is made of: not every error can be sent."""

    kind: type[Exception]
    words: tuple[str, ...]


def make(job: Job, name: str) -> Made | Refusal:
    """Make a run; called by Ray, on one of its machines.

    Args:
        job: The comparison.
        name: Of the run.

    Returns:
        How it ended; or why the whole comparison is to end.
    """
    machine = socket.gethostname()
    if job.version != VERSION:
        return _refused(
            f"{machine} has Sentei {VERSION}, and {job.driver} has {job.version}; install the same "
            "on all machines of the cluster"
        )
    if not _sees(job.mark):
        return _refused(
            f"{job.out}: {machine} does not see there what {job.driver} writes; --out must be on a "
            "disk that all machines of the cluster share, at the same path"
        )
    if not job.gpus:  # else every such run would take the first one
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # It is ignored where a shell started Ray's processes in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Ray sets it to the run's CPUs where a machine does not, and PyTorch has been imported by then.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1").split(",")[0]))
    quiet_transformers()
    try:
        return _make(job, name, machine)
    except SaveError as error:
        return Refusal(SaveError, (f"on {machine}: {error.failure}", error.remedy, "start again"))
    except ValueError as error:
        return _refused(f"on {machine}: {error}")
    except OSError as error:
        return Refusal(OSError, (f"on {machine}: {error}",))


def _make(job: Job, name: str, machine: str) -> Made:
    runs = Runs(job.plan, job.out)
    run, ended = runs[name], list[Event]()

    def tell(event: Event) -> None:
        if event.what in ("done", "failed", "lost"):
            ended.append(replace(event, run=None, machine=machine))
        else:
            say(event.what, event.text)

    def say(what: What, text: str) -> None:
        # Not by Queue.put: who waits for an answer gives its CPUs to another task meanwhile.
        # Plain texts: the queue's process would import all that an event is made of.
        job.queue.actor.put_nowait.remote((name, what, text, machine))

    worker = Worker(
        runs,
        only=[run],
        patience=job.patience,
        watch=job.lines(lambda line: say("progress", line)) if job.lines else lambda prepared: (),
        tell=tell,
        launch=job.launch,
        keep=job.keep,
    )
    try:
        with _noting_warnings(lambda text: say("note", text)):
            free = worker.make(run)
    except Interrupted as stop:
        tell(Event("lost", worker.standing.tally(run), text=str(stop)))
        free = True
    return Made(free, tuple(ended))


def _refused(words: str) -> Refusal:
    return Refusal(ValueError, (words,))


def _sees(mark: Path) -> bool:
    """Whether a file that the driver has just written is seen here."""
    end = time.monotonic() + SIGHT
    while not mark.is_file():
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


@contextmanager
def _noting_warnings(note: Callable[[str], None]) -> Iterator[None]:
    """Pass on our own warnings, which nobody would read in Ray's logs."""
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, SenteiWarning):
                note(str(message))
            else:
                before(message, category, *where, **more)

        warnings.showwarning = show
        yield
