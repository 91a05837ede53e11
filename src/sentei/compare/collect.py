"""From the folders of runs to the results of a comparison."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Literal

from sentei import report as reports
from sentei._version import VERSION
from sentei.compare.runs import RUNS, Run, Runs, Search
from sentei.compare.summaries import differences, summaries
from sentei.records import Comparison, RunEntry, RunReport, SearchEntry, TrialEntry


def collect(runs: Runs) -> Comparison:
    """The results so far; reads nothing but the comparison's folder.

    Raises:
        ValueError: A report is damaged or of another version.
    """
    shown = [run for run in runs.values() if _is_shown(run)]
    reported = {run.name: reports.read(run.folder) for run in shown if run.done}
    entries = [_entry(run, reported.get(run.name)) for run in shown]
    plan = runs.plan
    metrics = {run.task: reported[run.name].metric for run in shown if run.name in reported}
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
        runs=tuple(entries),
        summaries=tuple(
            summaries(entries, metrics, plan.baseline, lambda entry: _chosen(runs, entry.folder))
        ),
        differences=tuple(differences(entries, metrics, plan.baseline, plan.sparsities)),
        searches=tuple(_search(runs, search) for search in runs.searches.values()),
        plan=plan.model_dump(mode="json"),
        environments=tuple(json.loads(text) for text in sorted(environments)),
    )


def _is_shown(run: Run) -> bool:
    """Trials are shown with their searches, and the model they start from only where it failed."""
    if run.name.startswith(RUNS):
        return True
    return run.role == "start" and not run.done and run.error_file.is_file()


def _entry(run: Run, report: RunReport | None) -> RunEntry:
    error = _error(run) if report is None else None
    entry = RunEntry(
        task=run.task,
        recipe=run.recipe,
        sparsity=run.sparsity,
        seed=run.seed,
        state="failed" if error else "missing",
        folder=run.name,
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


def _error(run: Run) -> str | None:
    """The sentence that a failed run left, above its traceback."""
    if not run.error_file.is_file():
        return None
    return run.error_file.read_text("utf-8", errors="replace").partition("\n")[0][:1000]


def _chosen(runs: Runs, name: str) -> dict[str, object]:
    search = runs.searches.get(runs[name].search or "")
    return dict(search.chosen() or {}) if search else {}


def _search(runs: Runs, search: Search) -> SearchEntry:
    assert runs.plan.search is not None
    return SearchEntry(
        task=search.task,
        recipe=search.recipe,
        sparsity=search.sparsity,
        part=runs.plan.search.part,
        chosen=search.chosen(),
        trials=tuple(_trial(trial) for trial in search.trials),
    )


def _trial(trial: Run) -> TrialEntry:
    values, error = trial.drawn()["values"], _error(trial)
    if not trial.done:
        state: Literal["failed", "missing"] = "failed" if error else "missing"
        return TrialEntry(values=values, state=state, folder=trial.name, error=error)
    report = reports.read(trial.folder)
    value = report.sparse[report.metric]
    return TrialEntry(values=values, state="done", folder=trial.name, value=value)
