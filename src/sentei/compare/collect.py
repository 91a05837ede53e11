"""From the folders of runs to the results of a comparison."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Literal

from sentei import report as reports
from sentei._version import VERSION
from sentei.compare.cells import RUNS, Cell, Grid, Tuning
from sentei.compare.summaries import differences, summaries
from sentei.records import Comparison, RunEntry, RunReport, SearchEntry, TrialEntry


def collect(grid: Grid) -> Comparison:
    """The results so far; reads nothing but the comparison's folder.

    Raises:
        ValueError: A report is damaged or of another version.
    """
    cells = [cell for cell in grid.cells.values() if _shown(cell)]
    reported = {cell.name: reports.read(cell.folder) for cell in cells if cell.done}
    runs = [_run(cell, reported.get(cell.name)) for cell in cells]
    plan = grid.plan
    metrics = {cell.task: reported[cell.name].metric for cell in cells if cell.name in reported}
    environments = {
        json.dumps({name: value for name, value in report.environment.items() if name != "command"})
        for report in reported.values()
    }
    return Comparison(
        sentei=VERSION,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        title=f"{', '.join(plan.recipes)} on {', '.join(plan.tasks)}",
        baseline=plan.baseline,
        metrics=metrics,
        runs=tuple(runs),
        summaries=tuple(
            summaries(runs, metrics, plan.baseline, lambda run: _chosen(grid, run.folder))
        ),
        differences=tuple(differences(runs, metrics, plan.baseline, plan.sparsities)),
        searches=tuple(_search(grid, tuning) for tuning in grid.tunings.values()),
        plan=plan.model_dump(mode="json"),
        environments=tuple(json.loads(text) for text in sorted(environments)),
    )


def _shown(cell: Cell) -> bool:
    """Trials are shown with their searches, and the model they start from only where it failed."""
    if cell.name.startswith(RUNS):
        return True
    return cell.role == "start" and not cell.done and cell.error_file.is_file()


def _run(cell: Cell, report: RunReport | None) -> RunEntry:
    error = _error(cell) if report is None else None
    entry = RunEntry(
        task=cell.task,
        recipe=cell.recipe,
        sparsity=cell.sparsity,
        seed=cell.seed,
        state="failed" if error else "missing",
        folder=cell.name,
        error=error,
    )
    if report is None:
        return entry
    return entry.model_copy(
        update={
            "state": "done",
            "value": report.sparse[report.metric],
            "metrics": report.sparse,
            "measured": report.pruning.sparsity,
            "measured_all": report.pruning.sparsity_all,
            "seconds": report.seconds.get("total"),
        }
    )


def _error(cell: Cell) -> str | None:
    """The sentence that a failed run left, above its traceback."""
    if not cell.error_file.is_file():
        return None
    return cell.error_file.read_text("utf-8").partition("\n")[0]


def _chosen(grid: Grid, name: str) -> dict[str, object]:
    cell = grid.cells[name]
    tuning = grid.tunings.get(cell.search or "")
    return dict(tuning.chosen() or {}) if tuning else {}


def _search(grid: Grid, tuning: Tuning) -> SearchEntry:
    assert grid.plan.search is not None
    return SearchEntry(
        task=tuning.task,
        recipe=tuning.recipe,
        sparsity=tuning.sparsity,
        part=grid.plan.search.part,
        chosen=tuning.chosen(),
        trials=tuple(_trial(trial) for trial in tuning.trials),
    )


def _trial(trial: Cell) -> TrialEntry:
    values, error = trial.drawn()["values"], _error(trial)
    if not trial.done:
        state: Literal["failed", "missing"] = "failed" if error else "missing"
        return TrialEntry(values=values, state=state, folder=trial.name, error=error)
    report = reports.read(trial.folder)
    value = report.sparse[report.metric]
    return TrialEntry(values=values, state="done", folder=trial.name, value=value)
