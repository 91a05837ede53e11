"""A worker: takes free runs one after another, until all are settled.

Any number of workers share a comparison's folder and its storage of claims, on one machine or many.
They know nothing of each other but the claims and the files.
"""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sentei import report as reports
from sentei.compare import search
from sentei.compare.begin import check_still_asked
from sentei.compare.cells import Cell, Grid, Tuning
from sentei.compare.choices import apply
from sentei.compare.claims import Claim, ClaimLost, Claims
from sentei.compare.run import Watch, run_here, run_launched
from sentei.records import RunReport
from sentei.run.prepare import Prepared
from sentei.run.saving import SaveError
from sentei.run.training import Interrupted

State = Literal["done", "failed", "blocked", "waiting", "held", "free"]
"""Of a run: has its result; ended in an error; needs one that failed; needs one that is not done;
is somebody's; may be begun."""

SETTLED: Final = ("done", "failed", "blocked")

LOOK: Final = 5.0
"""Seconds between two looks for a run that has become free, at most."""


@dataclass(frozen=True)
class Progress:
    """Where a comparison stands: ``seconds`` since this worker began, ``left`` None if unknown."""

    done: int
    total: int
    seconds: float
    left: float | None


Kind = Literal["begin", "done", "failed", "lost", "wait"]


@dataclass(frozen=True)
class Event:
    """What a worker says: it begins a run, has finished it, saw it fail, lost it, or waits."""

    kind: Kind
    progress: Progress
    cell: Cell | None = None
    report: RunReport | None = None
    error: str = ""


class Worker:
    """One of the processes that share a comparison.

    Args:
        grid: Its runs.
        claims: Who has which.
        only: The runs to make, each after what it needs; None makes all.
        watch: Makes callbacks that show a run's progress.
        tell: Hears what happens.
        launch: Command that starts every run; None runs it in this process.
        wait: Stay while others are at work, for runs that need theirs, and to take over from a
            worker that dies.
        keep: Leave the checkpoints of finished runs, and the models of trials.
    """

    def __init__(
        self,
        grid: Grid,
        claims: Claims,
        *,
        only: Sequence[Cell] | None = None,
        watch: Watch = lambda prepared: (),
        tell: Callable[[Event], None] = lambda event: None,
        launch: str | None = None,
        wait: bool = True,
        keep: bool = False,
    ) -> None:
        self.grid = grid
        self.claims = claims
        self.cells = list(grid.cells.values()) if only is None else only
        self._watch = watch
        self._tell = tell
        self._launch = launch
        self._wait = wait
        self._keep = keep
        self._began = time.monotonic()
        self._took: dict[str, list[float]] = {}
        self._others = 0

    def work(self) -> bool:
        """Run what is free until nothing is left to do.

        Returns:
            Whether every run it was to make has its result.

        Raises:
            Interrupted: Ctrl-C in training; a checkpoint was written and the run is free again.
            KeyboardInterrupt: Ctrl-C elsewhere; the run is free again.
            SaveError: The disk is full or not writable.
            ValueError: The plan has changed since, and asks for another run where one was free.
        """
        told, alone = False, time.monotonic()
        while True:
            states = self._states()
            if self._others or "free" in states.values():
                alone = time.monotonic()
            for name, state in states.items():
                if state == "free" and (claim := self.claims.take(name)):
                    told = False
                    with claim:
                        self._run(self.grid.cells[name], claim)
                    break
            else:
                if all(state in SETTLED for state in states.values()):
                    return all(state == "done" for state in states.values())
                # Alone for long: done by the claims and not by the folders, which were removed.
                if not self._wait or time.monotonic() - alone > self.claims.patience:
                    return False
                if not told:
                    self._say("wait")
                told = True
                time.sleep(min(LOOK, self.claims.patience / 10))

    def _states(self) -> dict[str, State]:
        """The state of every run; searches that are over are decided on the way."""
        states: dict[str, State] = {}
        for cell in self.cells:  # each comes after what it needs
            states[cell.name] = self._state(cell, states)
        self._others = sum(state == "held" for state in states.values())
        return states

    def _state(self, cell: Cell, states: dict[str, State]) -> State:
        if cell.done or self._spared(cell):
            return "done"
        needs = [states[name] for name in cell.needs]
        if cell.search and cell.role == "pruned":
            needs.append(self._outcome(self.grid.tunings[cell.search], states))
        if "failed" in needs or "blocked" in needs:
            return "blocked"
        if any(need != "done" for need in needs):
            return "waiting"
        standing = self.claims.standing(cell.name)
        # Done elsewhere a moment ago: a shared disk may show the report later than the claim.
        return "waiting" if standing == "done" else standing

    def _spared(self, cell: Cell) -> bool:
        """Whether it is a trial that failed, of a search that was decided without it."""
        if cell.role != "trial" or not cell.search:
            return False
        return self.grid.tunings[cell.search].chosen() is not None

    def _outcome(self, tuning: Tuning, states: dict[str, State]) -> State:
        if tuning.chosen() is not None:
            return "done"
        if not all(states[trial.name] in SETTLED for trial in tuning.trials):
            return "waiting"
        return "done" if search.choose(tuning) else "failed"

    def _run(self, cell: Cell, claim: Claim) -> None:
        if cell.done:  # by another, between our look and our claim
            return
        check_still_asked(self.grid, cell)
        self._say("begin", cell)
        begun = time.monotonic()
        try:
            cell.folder.mkdir(parents=True, exist_ok=True)
            cell.error_file.unlink(missing_ok=True)
            report = self._execute(cell, claim)
        except ClaimLost as error:
            self._say("lost", cell, error=str(error))
            return
        except (Interrupted, SaveError):
            raise
        except Exception as error:
            sentence = " ".join(str(error).split()) or type(error).__name__
            cell.error_file.write_text(f"{sentence}\n\n{traceback.format_exc()}", "utf-8")
            claim.fail(sentence)
            self._say("failed", cell, error=sentence)
            return
        value = report.sparse[report.metric]
        if cell.search and cell.role == "trial":
            search.tell(self.grid.tunings[cell.search], cell, self.claims, report)
        claim.finish(value)
        if not self._keep:
            _tidy(cell)
        self._took.setdefault(cell.task, []).append(time.monotonic() - begun)
        self._say("done", cell, report)

    def _execute(self, cell: Cell, claim: Claim) -> RunReport:
        settings = cell.settings
        if cell.search:
            tuning = self.grid.tunings[cell.search]
            trial = cell.role == "trial"
            chosen = search.draw(tuning, cell, self.claims) if trial else tuning.chosen()
            settings = apply(settings, chosen or {})
        if self._launch:
            return run_launched(self._launch, cell.folder, settings, claim.check)

        def watch(prepared: Prepared) -> list[TrainerCallback]:
            return [*self._watch(prepared), _StillOurs(claim)]

        page = cell.role != "trial"
        return run_here(cell.folder, settings, watch, page=page, before=self._start(cell))

    def _start(self, cell: Cell) -> dict[str, float] | None:
        """What the model that a run starts from was measured to give, on the same data."""
        for needed in (self.grid.cells[name] for name in cell.needs):
            if needed.role == "start" and cell.settings.model == str(needed.folder / "model"):
                return reports.read(needed.folder).sparse
        return None

    def _say(
        self, kind: Kind, cell: Cell | None = None, report: RunReport | None = None, error: str = ""
    ) -> None:
        self._tell(Event(kind, self._progress(), cell, report, error))

    def _progress(self) -> Progress:
        """Time left by what runs of the same task took here, shared with the workers there are."""
        undone = [cell for cell in self.cells if not (cell.done or self._spared(cell))]
        means = {task: sum(took) / len(took) for task, took in self._took.items()}
        left = None
        if means:
            usual = sum(means.values()) / len(means)
            left = sum(means.get(cell.task, usual) for cell in undone) / (self._others + 1)
        total = len(self.cells)
        return Progress(total - len(undone), total, time.monotonic() - self._began, left)


class _StillOurs(TrainerCallback):
    """Ends a training whose run has gone to another worker, before a step is written."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.claim.check()


def _tidy(cell: Cell) -> None:
    """Checkpoints serve a run that goes on, and of a trial nothing is wanted but its number."""
    for name in ("checkpoints", "model") if cell.role == "trial" else ("checkpoints",):
        shutil.rmtree(cell.folder / name, ignore_errors=True)
