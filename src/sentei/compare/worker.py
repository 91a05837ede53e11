"""A worker: takes free runs one after another, until all are settled.

Any number of workers share a comparison's folder, on one machine or many. They know nothing of each
other but what is in the runs' folders: a lease, an error, a report.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sentei import report as reports
from sentei.compare import search as searching
from sentei.compare.choices import apply
from sentei.compare.execute import Watch, run_here, run_launched
from sentei.compare.folder import check_still_planned
from sentei.compare.runs import Run, Runs
from sentei.compare.states import SETTLED, Standing, Tally
from sentei.files import write_text
from sentei.locks import FolderLock, Lease, LeaseLost
from sentei.records import RunReport
from sentei.run.result import seal
from sentei.run.saving import SaveError
from sentei.run.training import Interrupted

PATIENCE: Final = 120.0
"""Seconds without a sign of life after which a worker's run is taken over."""

LOOK: Final = 5.0
"""Seconds between two looks for a run that has become free, at most."""


What = Literal["begin", "progress", "note", "done", "failed", "lost", "wait", "stop"]


@dataclass(frozen=True)
class Event:
    """What a worker tells: it begins a run, cannot use a part, has done or lost it, waits, stops.

    ``text`` is the error, or what else is said of the run. ``machine`` is where a cluster makes it.
    """

    what: What
    tally: Tally
    run: Run | None = None
    report: RunReport | None = None
    text: str = ""
    machine: str = ""


class Leases:
    """The leases of runs, kept from look to look: each notes its holder's last sign of life.

    Args:
        patience: Seconds without one after which a run is taken over; the same for all workers.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._leases: dict[str, Lease] = {}

    def take(self, run: Run) -> Lease | None:
        """The lease of a run, taken; None while another has it.

        Args:
            run: The run.

        Raises:
            ValueError: Another has it, with another patience.
        """
        if run.name not in self._leases:
            self._leases[run.name] = Lease(run.lease_file, self.patience)
        lease = self._leases[run.name]
        try:
            return lease if lease.take() else None
        except ValueError as error:
            raise ValueError(f"--patience {self.patience:g}: {error}") from None


class Worker:
    """One of the processes that share a comparison.

    Args:
        runs: Of the comparison.
        only: The runs to make, each after what it needs; None makes all.
        patience: Seconds without a sign of life after which a run is taken over; the same for all
            workers.
        watch: Makes callbacks that show a run's progress.
        tell: Hears what happens.
        launch: Command that starts every run; None runs it in this process.
        wait: Stay while others are at work, for runs that need theirs, and to take over from a
            worker that dies.
        keep: Leave the checkpoints of finished runs, and the models of trials.
    """

    def __init__(
        self,
        runs: Runs,
        *,
        only: Sequence[Run] | None = None,
        patience: float = PATIENCE,
        watch: Watch = lambda prepared: (),
        tell: Callable[[Event], None] = lambda event: None,
        launch: str | None = None,
        wait: bool = True,
        keep: bool = False,
    ) -> None:
        self.runs = runs
        self.selected = list(runs.values()) if only is None else only
        self._watch = watch
        self._tell = tell
        self._launch = launch
        self._wait = wait
        self._keep = keep
        self.standing = Standing(runs, self.selected)
        self.leases = Leases(patience)

    def work(self) -> bool:
        """Run what is free until nothing is left to do.

        Returns:
            Whether every run it was to make has its result.

        Raises:
            Interrupted: Ctrl-C in training; a checkpoint was written and the run is free again.
            KeyboardInterrupt: Ctrl-C elsewhere; the run is free again.
            SaveError: The disk is full or not writable.
            ValueError: The plan has changed since, and declares another run where one was free; or
                another worker has another patience.
        """
        waiting = False
        while True:
            states = self.standing.states()
            if all(state in SETTLED for state in states.values()):
                return all(state == "done" for state in states.values())
            # The first open run that nobody is at.
            if any(states[run.name] == "open" and self.make(run) for run in self.selected):
                waiting = False
                continue
            if not self._wait:
                return False
            if not waiting:
                self._say("wait")
            waiting = True
            time.sleep(min(LOOK, self.leases.patience / 10))

    def make(self, run: Run) -> bool:
        """Make a run, unless another is at it, has done it or failed at it.

        Args:
            run: One of those it was to make, whose needs are done.

        Returns:
            Whether nobody else was at it.

        Raises:
            Exception: As :meth:`work`.
        """
        if not (lease := self.leases.take(run)):
            return False
        # Workers share the folder, and agree by leases; a command that is given it has it alone.
        lock = FolderLock(run.folder, shared=True)
        with lease:
            if not lock.take():
                return False
            try:
                self._make(run, lease)
            finally:
                lock.leave()
        return True

    def _make(self, run: Run, lease: Lease) -> None:
        if run.done or self.standing.has_failed(run):  # by another, between our look and our lease
            return
        check_still_planned(self.runs, run)
        self._say("begin", run)
        begun = time.monotonic()
        try:
            run.error_file.unlink(missing_ok=True)
            report = self._execute(run, lease)
        except LeaseLost as error:
            self._say("lost", run, text=str(error))
            return
        except Interrupted:
            raise
        except Exception as error:
            if self._is_lost(run, lease):  # whose folder another has changed meanwhile
                return
            if isinstance(error, SaveError):
                raise
            self._fail(run, error)
            return
        if run.search and run.role == "trial":
            searching.tell(self.runs.searches[run.search], run, self.runs.out, report)
        if not self._keep:
            _tidy(run)
        self.standing.took(run, time.monotonic() - begun)
        self._say("done", run, report)

    def _is_lost(self, run: Run, lease: Lease) -> bool:
        try:
            lease.check()
        except LeaseLost as lost:
            self._say("lost", run, text=str(lost))
            return True
        return False

    def _fail(self, run: Run, error: Exception) -> None:
        sentence = " ".join(str(error).split()) or type(error).__name__
        write_text(run.error_file, f"{sentence}\n\n{traceback.format_exc()}")
        self._say("failed", run, text=sentence)

    def _execute(self, run: Run, lease: Lease) -> RunReport:
        settings = run.settings
        if run.search:
            search = self.runs.searches[run.search]
            if run.role == "trial":
                values = searching.draw(search, run, self.runs.out)
            else:
                values = search.chosen() or {}
            settings = apply(settings, values)
        if self._launch:
            return run_launched(self._launch, run.folder, settings, lease.check)
        return run_here(
            run.folder,
            settings,
            self._watch,
            lease.check,
            page=run.role != "trial",
            before=self._start(run),
            tell=lambda said: self._say("note", run, text=said),
        )

    def _start(self, run: Run) -> dict[str, float] | None:
        """What the model that a run starts from was measured to give, on the same data."""
        for needed in (self.runs[name] for name in run.needs):
            if needed.role == "start" and run.settings.model == str(needed.folder / "model"):
                return reports.read(needed.folder).sparse
        return None

    def _say(
        self, what: What, run: Run | None = None, report: RunReport | None = None, text: str = ""
    ) -> None:
        self._tell(Event(what, self.standing.tally(run), run, report, text))


def _tidy(run: Run) -> None:
    """Checkpoints serve a run that goes on, and of a trial nothing is wanted but its number."""
    if run.role == "trial":
        seal(run.folder, model=False)
    for name in ("checkpoints", "model") if run.role == "trial" else ("checkpoints",):
        shutil.rmtree(run.folder / name, ignore_errors=True)
