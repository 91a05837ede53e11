"""What was measured under the protocols, as a comparison sees it, and as rows of a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from benchmarks.log import Line, Log
from sentei.compare.summaries import differences, summaries
from sentei.records import REFERENCES, Difference, RunEntry, Summary

Cell = tuple[str, str, float]
"""Task, recipe and sparsity."""


@dataclass(frozen=True)
class Measured:
    """Runs, and the headline metric of each task."""

    runs: tuple[RunEntry, ...]
    metrics: dict[str, str]

    def where(
        self,
        *,
        tasks: Collection[str] | None = None,
        recipes: Collection[str] | None = None,
        sparsity: float | None = None,
        seed: int | None = None,
    ) -> Measured:
        """Some of the runs: None takes all."""
        runs = tuple(
            run
            for run in self.runs
            if (tasks is None or run.task in tasks)
            and (recipes is None or run.recipe in recipes)
            and sparsity in (None, run.sparsity)
            and seed in (None, run.seed)
        )
        shown = {run.task for run in runs}
        return Measured(runs, {task: m for task, m in self.metrics.items() if task in shown})

    @property
    def sparsities(self) -> list[float]:
        """At which anything was pruned, from the least."""
        return sorted({run.sparsity for run in self.runs if run.recipe not in REFERENCES})

    @cached_property
    def means(self) -> dict[Cell, float]:
        """Over seeds."""
        return {(s.task, s.recipe, s.sparsity): s.mean for s in self.summaries()}

    def summaries(self, baseline: str = "") -> list[Summary]:
        """Of every task, recipe and sparsity."""
        return list(summaries(self.runs, self.metrics, baseline))

    def differences(self, baseline: str) -> list[Difference]:
        """To a baseline over tasks and seeds, at each sparsity and over all."""
        return list(differences(self.runs, self.metrics, baseline, self.sparsities))

    def text(self, task: str, recipe: str, sparsity: float = 0.0) -> str:
        """A mean over seeds, in %; empty where there is none."""
        mean = self.means.get((task, recipe, sparsity))
        return "" if mean is None else percent(mean)


def measured(*protocols: str) -> Measured:
    """The runs under some protocols, without those of their searches."""
    return of_lines(line for protocol in protocols for line in Log(f"quality_{protocol}").lines)


def of_lines(lines: Iterable[Line]) -> Measured:
    """Lines of results/quality_*.jsonl."""
    lines = [line for line in lines if line["run"].startswith("runs/")]
    runs = (
        RunEntry(
            task=line["task"],
            recipe=line["recipe"],
            sparsity=line["sparsity"],
            seed=line["seed"],
            state="done",
            folder=line["run"],
            value=line["metrics"][line["metric"]],
            metrics=line["metrics"],
            measured=line["pruned"] / line["prunable"],
            seconds=line["seconds"],
        )
        for line in lines
    )
    return Measured(tuple(runs), {line["task"]: line["metric"] for line in lines})


class Row(NamedTuple):
    """A recipe at a sparsity: a cell for each task, their mean if it has all, the difference."""

    recipe: str
    cells: list[Summary | None]
    mean: float | None
    difference: Difference | None


def pivot(runs: Measured, sparsity: float, baseline: str) -> list[Row]:
    """Recipes at a sparsity against tasks.

    The dense models, at 0, are in the order in which they are trained. The others stand in that of
    their mean differences to the baseline, as not every one has run on every task.
    """
    here = runs.where(sparsity=sparsity)
    recipes: dict[str, dict[str, Summary]] = {}
    for summary in here.summaries(baseline):
        recipes.setdefault(summary.recipe, {})[summary.task] = summary
    against = {one.recipe: one for one in here.differences(baseline)}
    rows = []
    for recipe, cells in recipes.items():
        means = [cell.mean for cell in cells.values()]
        complete = len(cells) == len(here.metrics)
        row = Row(
            recipe,
            [cells.get(task) for task in here.metrics],
            sum(means) / len(means) if complete else None,
            against.get(recipe) or _of_one_task(cells.values()),
        )
        rows.append(row)
    return sorted(rows, key=lambda row: _place(row, baseline))


def _of_one_task(cells: Iterable[Summary]) -> Difference | None:
    """Where only one task has anything to compare."""
    for cell in cells:
        if cell.difference is not None:
            return Difference(
                recipe=cell.recipe,
                sparsity=cell.sparsity,
                count=cell.pairs,
                mean=cell.difference,
                low=cell.low,
                high=cell.high,
            )
    return None


def _place(row: Row, baseline: str) -> tuple[int, float]:
    if row.recipe in REFERENCES:
        return 0, REFERENCES.index(row.recipe)
    if row.recipe == baseline:
        return 1, 0.0
    return (2, 0.0) if row.difference is None else (1, -row.difference.mean)


def percent(value: float) -> str:
    """84.2: shares and correlations, in hundredths."""
    return f"{100 * value:.1f}"


def against(difference: Difference | None) -> str:
    """+1.1 (+0.2 to +2.1), 11 pairs: of two pairs the interval says nothing, and is left out."""
    if difference is None:
        return ""
    text = f"{100 * difference.mean:+.1f}"
    if difference.low is not None and difference.high is not None and difference.count > 2:
        text += f" ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
    return f"{text}, {difference.count} pair{'s' * (difference.count > 1)}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [head, *rows]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([text[0], "|---" * len(head) + "|", *text[1:]])
