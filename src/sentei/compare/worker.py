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
from pathlib import Path
from typing import Final, Literal

from sentei import report as reports
from sentei.compare import search as searching
from sentei.compare.choices import apply
from sentei.compare.execute import Watch, run_here, run_launched
from sentei.compare.folder import check_still_planned
from sentei.compare.runs import Run, Runs, Search
from sentei.files import write_text
from sentei.locks import FolderLock, Lease, LeaseLost
from sentei.records import RunReport
from sentei.run.result import seal
from sentei.run.saving import SaveError
from sentei.run.training import Interrupted

State = Literal["done", "failed", "blocked", "waiting", "open"]
"""Of a run: has its result; ended in an error; needs one that failed; needs one that is not done;
may be begun, unless a worker is at it."""

SETTLED: Final = ("done", "failed", "blocked")

PATIENCE: Final = 120.0
"""Seconds without a sign of life after which a worker's run is taken over."""

LOOK: Final = 5.0
"""Seconds between two looks for a run that has become free, at most."""


@dataclass(frozen=True)
class Tally:
    """Where a comparison stands: ``seconds`` since this worker began, ``left`` None if unknown."""

    done: int
    total: int
    seconds: float
    left: float | None


What = Literal["begin", "note", "done", "failed", "lost", "wait"]


@dataclass(frozen=True)
class Event:
    """What a worker tells: it begins a run, cannot use a part, has done or lost it, or waits."""

    what: What
    tally: Tally
    run: Run | None = None
    report: RunReport | None = None
    error: str = ""


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
        self.patience = patience
        self._watch = watch
        self._tell = tell
        self._launch = launch
        self._wait = wait
        self._keep = keep
        self._began = time.monotonic()
        self._seconds: dict[str, list[float]] = {}
        # Kept from look to look: each notes when it saw the other holder's last sign of life.
        self._leases: dict[str, Lease] = {}
        self._old_errors = {run.name: _stamp(run.error_file) for run in self.selected}

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
            states = self._states()
            if all(state in SETTLED for state in states.values()):
                return all(state == "done" for state in states.values())
            if self._next(states):
                waiting = False
                continue
            if not self._wait:
                return False
            if not waiting:
                self._say("wait")
            waiting = True
            time.sleep(min(LOOK, self.patience / 10))

    def _next(self, states: dict[str, State]) -> bool:
        """Make the first open run that nobody is at; False where there is none."""
        for run in self.selected:
            if states[run.name] != "open" or not (lease := self._take(run)):
                continue
            # Workers share the folder, and agree by leases; a command that is given it has it
            # alone.
            lock = FolderLock(run.folder, shared=True)
            with lease:
                if lock.take():
                    try:
                        self._make(run, lease)
                    finally:
                        lock.leave()
                    return True
        return False

    def _take(self, run: Run) -> Lease | None:
        if run.name not in self._leases:
            self._leases[run.name] = Lease(run.lease_file, self.patience)
        lease = self._leases[run.name]
        try:
            return lease if lease.take() else None
        except ValueError as error:
            raise ValueError(f"--patience {self.patience:g}: {error}") from None

    def _states(self) -> dict[str, State]:
        """The state of every run; searches that are over are decided on the way."""
        states: dict[str, State] = {}
        for run in self.selected:  # each comes after what it needs
            states[run.name] = self._state(run, states)
        return states

    def _state(self, run: Run, states: dict[str, State]) -> State:
        if run.done or self._is_spared(run):
            return "done"
        if self._has_failed(run):
            return "failed"
        needs = [states[name] for name in run.needs]
        if run.search and run.role == "pruned":
            needs.append(self._outcome(self.runs.searches[run.search], states))
        if "failed" in needs or "blocked" in needs:
            return "blocked"
        return "waiting" if any(need != "done" for need in needs) else "open"

    def _has_failed(self, run: Run) -> bool:
        """Since this worker began: what failed before is tried again."""
        return _stamp(run.error_file) not in (None, self._old_errors[run.name])

    def _is_spared(self, run: Run) -> bool:
        """Whether it is a trial that failed, of a search that was decided without it."""
        if run.role != "trial" or not run.search:
            return False
        return self.runs.searches[run.search].chosen() is not None

    def _outcome(self, search: Search, states: dict[str, State]) -> State:
        if search.chosen() is not None:
            return "done"
        if not all(states[trial.name] in SETTLED for trial in search.trials):
            return "waiting"
        return "done" if searching.choose(search) else "failed"

    def _make(self, run: Run, lease: Lease) -> None:
        if run.done or self._has_failed(run):  # by another, between our look and our lease
            return
        check_still_planned(self.runs, run)
        self._say("begin", run)
        begun = time.monotonic()
        try:
            run.error_file.unlink(missing_ok=True)
            report = self._execute(run, lease)
        except LeaseLost as error:
            self._say("lost", run, error=str(error))
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
        self._seconds.setdefault(run.task, []).append(time.monotonic() - begun)
        self._say("done", run, report)

    def _is_lost(self, run: Run, lease: Lease) -> bool:
        try:
            lease.check()
        except LeaseLost as lost:
            self._say("lost", run, error=str(lost))
            return True
        return False

    def _fail(self, run: Run, error: Exception) -> None:
        sentence = " ".join(str(error).split()) or type(error).__name__
        write_text(run.error_file, f"{sentence}\n\n{traceback.format_exc()}")
        self._say("failed", run, error=sentence)

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
            tell=lambda said: self._say("note", run, error=said),
        )

    def _start(self, run: Run) -> dict[str, float] | None:
        """What the model that a run starts from was measured to give, on the same data."""
        for needed in (self.runs[name] for name in run.needs):
            if needed.role == "start" and run.settings.model == str(needed.folder / "model"):
                return reports.read(needed.folder).sparse
        return None

    def _say(
        self, what: What, run: Run | None = None, report: RunReport | None = None, error: str = ""
    ) -> None:
        self._tell(Event(what, self._tally(run), run, report, error))

    def _tally(self, ours: Run | None) -> Tally:
        """Time left by what runs of the same task took here, shared with the workers there are."""
        undone = [run for run in self.selected if not (run.done or self._is_spared(run))]
        others = sum(run is not ours and run.lease_file.exists() for run in undone)
        means = {task: sum(took) / len(took) for task, took in self._seconds.items()}
        left = None
        if means:
            usual = sum(means.values()) / len(means)
            left = sum(means.get(run.task, usual) for run in undone) / (others + 1)
        total = len(self.selected)
        return Tally(total - len(undone), total, time.monotonic() - self._began, left)


def _stamp(file: Path) -> tuple[int, int] | None:
    """What tells a file from one that was written in its place; None where there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino


def _tidy(run: Run) -> None:
    """Checkpoints serve a run that goes on, and of a trial nothing is wanted but its number."""
    if run.role == "trial":
        seal(run.folder, model=False)
    for name in ("checkpoints", "model") if run.role == "trial" else ("checkpoints",):
        shutil.rmtree(run.folder / name, ignore_errors=True)
