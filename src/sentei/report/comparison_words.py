"""What the page and the console both say of a comparison: rows of words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sentei.report.comparison import REFERENCES, Comparison, SearchEntry, Summary


class Row(NamedTuple):
    """A recipe at a sparsity, in words; empty where there is nothing to say."""

    recipe: str
    sparsity: str
    runs: str
    value: str
    against: str
    front: bool
    chosen: str
    folders: tuple[str, ...]


def rows(comparison: Comparison, task: str) -> Iterator[Row]:
    """The task's rows: the dense models first, then by sparsity in the plan's order."""
    recipes = [*REFERENCES, *comparison.plan["recipes"]]
    here = [summary for summary in comparison.summaries if summary.task == task]
    here.sort(key=lambda s: (s.recipe not in REFERENCES, s.sparsity, recipes.index(s.recipe)))
    for summary in here:
        reference = summary.recipe in REFERENCES
        yield Row(
            recipe=summary.recipe,
            sparsity="" if reference else sparsity(summary.measured),
            runs=str(summary.count),
            value=value(summary),
            against=_against(summary, comparison.baseline),
            front=summary.front,
            chosen=named(summary.chosen),
            folders=summary.folders,
        )


def differences(comparison: Comparison) -> Iterator[tuple[str, str, str, str]]:
    """Recipe, sparsity, count and difference, over all tasks."""
    for found in comparison.differences:
        at = "all" if found.sparsity is None else sparsity(found.sparsity)
        yield found.recipe, at, str(found.count), difference(found.mean, found.low, found.high)


def state(comparison: Comparison) -> str:
    """How much of it is there, in a sentence."""
    done, failed = len(comparison.of("done")), len(comparison.of("failed"))
    text = f"{done} of {len(comparison.runs)} runs are done"
    if failed:
        text += f", {failed} failed"
    return text + "."


def choice(search: SearchEntry) -> str:
    """What a search chose, in a line."""
    at = "" if search.sparsity is None else f" at {sparsity(search.sparsity)}"
    return f"chosen for {search.recipe}{at}: {named(search.chosen) or 'nothing yet'}"


def named(values: Mapping[str, object] | None) -> str:
    """Chosen values: learning_rate=0.0001, score.beta2=0.65."""
    return ", ".join(f"{name}={value}" for name, value in (values or {}).items())


def value(summary: Summary) -> str:
    """A mean in hundredths with its sample standard deviation: 87.1 ± 0.4."""
    mean = f"{100 * summary.mean:.1f}"
    return mean if summary.deviation is None else f"{mean} ± {100 * summary.deviation:.1f}"


def difference(mean: float, low: float | None, high: float | None) -> str:
    """A difference in hundredths with its interval: +1.2 [0.3, 2.1]."""
    text = f"{100 * mean:+.1f}"
    return text if low is None or high is None else f"{text} [{100 * low:.1f}, {100 * high:.1f}]"


def sparsity(share: float) -> str:
    """Without a decimal where it has none: 80 %, 87.5 %."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _against(summary: Summary, baseline: str) -> str:
    if summary.recipe == baseline:
        return "baseline"
    if summary.difference is None:
        return ""
    return difference(summary.difference, summary.low, summary.high)
