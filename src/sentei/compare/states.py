"""Where the runs of a comparison stand, as their folders say."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sentei.compare import search as searching
from sentei.compare.runs import Run, Runs, Search

State = Literal["done", "failed", "blocked", "waiting", "open"]
"""Of a run: has its result; ended in an error; needs one that failed; needs one that is not done;
may be begun, unless a worker is at it."""

SETTLED: Final = ("done", "failed", "blocked")


@dataclass(frozen=True)
class Tally:
    """Where a comparison stands: ``seconds`` since this worker began, ``left`` None if unknown."""

    done: int
    total: int
    seconds: float
    left: float | None


class Standing:
    """The state of every run, to be asked for again and again.

    Args:
        runs: Of the comparison.
        selected: The runs to make, each after what it needs.
    """

    def __init__(self, runs: Runs, selected: Sequence[Run]) -> None:
        self.runs = runs
        self.selected = selected
        self._began = time.monotonic()
        self._seconds: dict[str, list[float]] = {}
        self._old_errors = {run.name: _stamp(run.error_file) for run in selected}

    def states(self) -> dict[str, State]:
        """The state of every run; searches that are over are decided on the way."""
        states: dict[str, State] = {}
        for run in self.selected:  # each comes after what it needs
            states[run.name] = self._state(run, states)
        return states

    def has_failed(self, run: Run) -> bool:
        """Since this worker began: what failed before is tried again."""
        return _stamp(run.error_file) not in (None, self._old_errors[run.name])

    def took(self, run: Run, seconds: float) -> None:
        """Note how long a run took, to tell how long is left."""
        self._seconds.setdefault(run.task, []).append(seconds)

    def tally(self, ours: Run | None = None) -> Tally:
        """Time left by what runs of the same task took, shared by those who are at work.

        Args:
            ours: The run that this worker is at, whose lease is not another's.
        """
        undone = [run for run in self.selected if not (run.done or self._is_spared(run))]
        others = sum(run is not ours and run.lease_file.exists() for run in undone)
        means = {task: sum(took) / len(took) for task, took in self._seconds.items()}
        left = None
        if means:
            usual = sum(means.values()) / len(means)
            hands = max(1, others + (ours is not None))
            left = sum(means.get(run.task, usual) for run in undone) / hands
        total = len(self.selected)
        return Tally(total - len(undone), total, time.monotonic() - self._began, left)

    def _state(self, run: Run, states: dict[str, State]) -> State:
        if run.done or self._is_spared(run):
            return "done"
        if self.has_failed(run):
            return "failed"
        needs = [states[name] for name in run.needs]
        if run.search and run.role == "pruned":
            needs.append(self._outcome(self.runs.searches[run.search], states))
        if "failed" in needs or "blocked" in needs:
            return "blocked"
        return "waiting" if any(need != "done" for need in needs) else "open"

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


def _stamp(file: Path) -> tuple[int, int] | None:
    """What tells a file from one that was written in its place; None where there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino
