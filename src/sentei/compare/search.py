"""The values of a trial, and the choice of the best of all trials, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentei import report as reports
from sentei.compare.choices import Scalar, combinations
from sentei.compare.runs import Run, Search
from sentei.files import write_once
from sentei.records import RunReport
from sentei.report.facts import Metric


def draw(search: Search, trial: Run, out: Path) -> dict[str, Scalar]:
    """The values of a trial that this worker is at; the same whenever it is begun again.

    Of a grid every trial has a combination of its own. Of ranges they are drawn by TPE from what
    all workers have found so far.

    Args:
        search: What the trial belongs to.
        trial: The run.
        out: Folder of the comparison.
    """
    if not trial.values_file.is_file():
        grid = combinations(search.space, len(search.trials))
        if grid is not None:
            drawn: dict[str, Any] = {"values": grid[trial.number]}
        else:
            from sentei.compare import ranges

            drawn = ranges.draw(search.name, search.space, trial.number, out)
        write_once(trial.values_file, json.dumps(drawn) + "\n")
    values: dict[str, Scalar] = trial.drawn()["values"]
    return values


def tell(search: Search, trial: Run, out: Path, report: RunReport) -> None:
    """Add a finished trial to what later ones are drawn from, where they are drawn."""
    if search.ranged:
        from sentei.compare import ranges

        ranges.tell(search.name, search.space, trial.drawn(), _worth(report), out)


def choose(search: Search) -> bool:
    """Write the best trial's values; of equals the first. False where none has finished.

    What was chosen stays: a trial that is finished later does not change runs already made.
    """
    reported = {trial.name: reports.read(trial.folder) for trial in search.trials if trial.done}
    finished = [trial for trial in search.trials if trial.name in reported]
    if not finished:
        return False
    best = max(finished, key=lambda trial: (_worth(reported[trial.name]), -trial.number))
    report = reported[best.name]
    value = report.sparse[report.metric]
    choice = {"trial": best.name, "metric": report.metric, "value": value}
    choice["values"] = best.drawn()["values"]
    write_once(search.choice_file, json.dumps(choice, indent=2) + "\n")
    return True


def _worth(report: RunReport) -> float:
    """The metric, negative where lower is better: trials are ranked by it, highest first."""
    value = report.sparse[report.metric]
    return -value if Metric(report.metric).lower_is_better else value
