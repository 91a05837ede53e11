"""What the page and the console both say of a comparison: rows of words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sentei.records import REFERENCES, Comparison, SearchEntry, Summary
from sentei.report.facts import Metric


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
            value=value(summary, factor(comparison.metrics[task])),
            against=_against(summary, comparison.baseline, factor(comparison.metrics[task])),
            front=summary.front,
            chosen=named(summary.chosen),
            folders=summary.folders,
        )


def differences(comparison: Comparison) -> Iterator[tuple[str, str, str, str]]:
    """Recipe, sparsity, count and difference, over all tasks."""
    for one in comparison.differences:
        at = "all" if one.sparsity is None else sparsity(one.sparsity)
        yield one.recipe, at, str(one.count), difference(one.mean, one.low, one.high)


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


def factor(metric: str) -> int:
    """What a metric is shown times: shares and correlations 100, perplexity and losses 1."""
    return 1 if Metric(metric).lower_is_better else 100


def heading(metric: str) -> str:
    """A metric over its column: accuracy × 100, perplexity (lower is better)."""
    times = factor(metric)
    return Metric(metric).label + (Metric(metric).direction if times == 1 else f" × {times}")


def value(summary: Summary, times: int = 100) -> str:
    """A mean with its sample standard deviation, in hundredths: 87.1 ± 0.4."""
    mean = f"{times * summary.mean:.1f}"
    return mean if summary.deviation is None else f"{mean} ± {times * summary.deviation:.1f}"


def difference(mean: float, low: float | None, high: float | None, times: int = 100) -> str:
    """A difference with its interval, in hundredths: +1.2 [0.3, 2.1]."""
    text = f"{times * mean:+.1f}"
    reach = "" if low is None or high is None else f" [{times * low:.1f}, {times * high:.1f}]"
    return text + reach


def sparsity(share: float) -> str:
    """Without a decimal where it has none: 80 %, 87.5 %."""
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _against(summary: Summary, baseline: str, times: int) -> str:
    if summary.recipe == baseline:
        return "baseline"
    if summary.difference is None:
        return ""
    return difference(summary.difference, summary.low, summary.high, times)
