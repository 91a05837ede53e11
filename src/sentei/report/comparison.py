"""What a comparison leaves behind: ``compare.json`` for machines, ``compare.html`` for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from sentei.records import Record
from sentei.report.files import drawing, replace

REFERENCES: Final = ("start", "dense")
"""Rows that are no recipe: the dense model all start from, and it trained on without pruning."""


class RunEntry(Record):
    """One run of a comparison; what was not measured is None.

    ``recipe`` is ``start`` for the dense model that the others start from and ``dense`` for that
    model trained on without pruning. ``folder`` is below the comparison's; its ``report.json`` has
    ``metrics`` under ``sparse``. ``measured`` is the sparsity over the prunable weights,
    ``measured_all`` that over all parameters.
    """

    task: str
    recipe: str
    sparsity: float
    seed: int
    state: Literal["done", "failed", "missing"]
    folder: str
    value: float | None = None
    metrics: dict[str, float] = Field({})
    measured: float | None = None
    measured_all: float | None = None
    seconds: float | None = None
    error: str | None = None


class Summary(Record):
    """A recipe at a task and sparsity, over its seeds.

    ``deviation`` is the sample standard deviation, None of one run. ``front`` says that no other
    recipe of this task is as sparse and as good and better in one of both. ``chosen`` is what a
    search chose for it. ``difference``, ``low`` and ``high`` are against the baseline, over
    ``pairs`` seeds that both have, with a 95 % t interval; None where there is no pair, or one.
    """

    task: str
    recipe: str
    sparsity: float
    count: int
    mean: float
    deviation: float | None
    measured: float
    front: bool
    folders: tuple[str, ...]
    chosen: dict[str, Any] = Field({})
    pairs: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None


class Difference(Record):
    """A recipe against the baseline over all tasks and seeds that both have.

    Where ``sparsity`` is None, differences are averaged over sparsities within each task and seed
    first; ``count`` counts tasks and seeds. ``low`` and ``high`` are the ends of a 95 % t interval,
    None for one.
    """

    recipe: str
    sparsity: float | None
    count: int
    mean: float
    low: float | None
    high: float | None


class TrialEntry(Record):
    """One trial of a search; ``value`` is the metric on the part of the training data set aside."""

    values: dict[str, Any]
    state: Literal["done", "failed", "missing"]
    folder: str
    value: float | None = None
    error: str | None = None


class SearchEntry(Record):
    """The search of one recipe at one task; ``sparsity`` is None where it serves all.

    ``part`` is the fraction of the training data that judged the trials.
    """

    task: str
    recipe: str
    sparsity: float | None
    part: float
    chosen: dict[str, Any] | None
    trials: tuple[TrialEntry, ...]


class Comparison(Record):
    """A whole comparison; ``metrics`` maps each task to its headline metric."""

    sentei: str
    created: str
    title: str
    baseline: str
    metrics: dict[str, str]
    runs: tuple[RunEntry, ...]
    summaries: tuple[Summary, ...]
    differences: tuple[Difference, ...]
    searches: tuple[SearchEntry, ...]
    plan: dict[str, Any]
    environments: tuple[dict[str, str], ...]

    def of(self, state: str) -> tuple[RunEntry, ...]:
        """The runs in that state."""
        return tuple(run for run in self.runs if run.state == state)

    @property
    def seconds(self) -> float:
        """Of all finished runs together, wherever they ran."""
        return sum(run.seconds or 0.0 for run in self.runs)


def write(comparison: Comparison, folder: Path) -> None:
    """Writes ``compare.json``, then ``compare.html``; each appears whole or not at all.

    Raises:
        ModuleNotFoundError: The extra ``report`` is not installed (``compare.json`` is written).
    """
    replace(folder / "compare.json", comparison.model_dump_json(indent=2) + "\n")
    replace(folder / "compare.html", render(comparison))


def render(comparison: Comparison) -> str:
    """The page as text: one file, no network, no script.

    Raises:
        ModuleNotFoundError: The extra ``report`` is not installed.
    """
    with drawing("compare.html"):
        from sentei.report.comparison_page import render as render_page
    return render_page(comparison)
