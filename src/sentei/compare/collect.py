"""From the folders of runs to the results of a comparison."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

from sentei import report as reports
from sentei._version import VERSION
from sentei.compare.cells import RUNS, Cell, Grid, Tuning
from sentei.compare.plan import Plan
from sentei.compare.statistics import front, interval, paired, pooled, spread
from sentei.records import RunReport
from sentei.report.comparison import (
    REFERENCES,
    Comparison,
    Difference,
    RunEntry,
    SearchEntry,
    Summary,
    TrialEntry,
)
from sentei.report.facts import Metric

_Values = dict[tuple[str, float, int], float]
"""By task, sparsity and seed."""


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
        summaries=tuple(_summaries(grid, runs, metrics)),
        differences=tuple(_differences(plan, runs, metrics)),
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


def _summaries(grid: Grid, runs: list[RunEntry], metrics: Mapping[str, str]) -> Iterable[Summary]:
    """One for each task, recipe and sparsity that has a run."""
    baseline, values = grid.plan.baseline, _by_recipe(runs)
    groups: dict[tuple[str, str, float], list[RunEntry]] = defaultdict(list)
    for run in runs:
        if run.state == "done":
            groups[run.task, run.recipe, run.sparsity].append(run)
    measured = {
        key: spread([run.measured or 0.0 for run in group]).mean for key, group in groups.items()
    }
    means = {key: spread([run.value or 0.0 for run in group]) for key, group in groups.items()}
    fronts = set[tuple[str, str, float]]()
    for task in grid.plan.tasks:
        there = [key for key in groups if key[0] == task and key[1] in grid.plan.recipes]
        sign = -1 if task in metrics and Metric(metrics[task]).lower_is_better else 1
        # As shares are shown: a stray zero more does not make a recipe the sparser one.
        fronts |= front({key: (round(measured[key], 3), sign * means[key].mean) for key in there})
    for key, group in groups.items():
        task, recipe, sparsity = key
        here = {at: value for at, value in values[recipe].items() if at[:2] == (task, sparsity)}
        found = list(paired(here, values[baseline]).values()) if recipe != baseline else []
        against = interval(found) if found else None
        yield Summary(
            task=task,
            recipe=recipe,
            sparsity=sparsity,
            count=means[key].n,
            mean=means[key].mean,
            deviation=means[key].deviation,
            measured=measured[key],
            front=key in fronts,
            folders=tuple(run.folder for run in group),
            chosen=_chosen(grid, group[0].folder),
            pairs=against.n if against else 0,
            difference=against.mean if against else None,
            low=against.low if against else None,
            high=against.high if against else None,
        )


def _differences(
    plan: Plan, runs: list[RunEntry], metrics: Mapping[str, str]
) -> Iterable[Difference]:
    """Over all tasks at each sparsity, and over all sparsities; of what there are several.

    Tasks whose metric is better the lower have other units than the rest, and are left out.
    """
    lower = {task for task, metric in metrics.items() if Metric(metric).lower_is_better}
    values, baseline = _by_recipe(run for run in runs if run.task not in lower), plan.baseline
    recipes = [name for name in values if name not in (*REFERENCES, baseline)]
    sparsities = sorted({sparsity for name in recipes for _, sparsity, _ in values[name]})
    tasks = {task for name in recipes for task, _, _ in values[name]}
    wanted: list[float | None] = [*sparsities] if len(tasks) > 1 else []
    if len(sparsities) > 1:
        wanted.append(None)
    for at in wanted:
        for recipe in recipes:
            found = paired(values[recipe], values[baseline])
            here = [
                ((task, seed), difference)
                for (task, sparsity, seed), difference in found.items()
                if at in (None, sparsity)
            ]
            differences = pooled(here, len(plan.sparsities) if at is None else 1)
            if differences:
                n, mean, low, high = interval(differences)
                yield Difference(recipe=recipe, sparsity=at, count=n, mean=mean, low=low, high=high)


def _by_recipe(runs: Iterable[RunEntry]) -> dict[str, _Values]:
    values: dict[str, _Values] = defaultdict(dict)
    for run in runs:
        if run.value is not None:
            values[run.recipe][run.task, run.sparsity, run.seed] = run.value
    return values


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
