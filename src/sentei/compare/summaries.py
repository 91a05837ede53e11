"""From single runs to means, differences to the baseline, and the front."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sentei.compare.statistics import front, interval, paired, pooled, spread
from sentei.records import REFERENCES, Difference, RunEntry, Summary
from sentei.report.facts import Metric

_Key = tuple[str, str, float]
"""Task, recipe and sparsity."""

_Values = dict[tuple[str, float, int], float]
"""By task, sparsity and seed."""


def summaries(
    runs: Sequence[RunEntry],
    metrics: Mapping[str, str],
    baseline: str,
    chosen: Callable[[RunEntry], dict[str, Any]] = lambda run: {},
) -> Iterator[Summary]:
    """One for each task, recipe and sparsity that has a finished run, over its seeds.

    Args:
        runs: Of all recipes.
        metrics: The headline metric of each task.
        baseline: The recipe that differences are against.
        chosen: What a search chose for a run.
    """
    values = _by_recipe(runs)
    groups: dict[_Key, list[RunEntry]] = defaultdict(list)
    for run in runs:
        if run.state == "done":
            groups[run.task, run.recipe, run.sparsity].append(run)
    measured = {
        key: spread([run.measured or 0.0 for run in group]).mean for key, group in groups.items()
    }
    means = {key: spread([run.value or 0.0 for run in group]) for key, group in groups.items()}
    best = _fronts({key: (measured[key], means[key].mean) for key in groups}, metrics)
    for key, group in groups.items():
        task, recipe, sparsity = key
        here = {at: value for at, value in values[recipe].items() if at[:2] == (task, sparsity)}
        pairs = list(paired(here, values[baseline]).values()) if recipe != baseline else []
        against = interval(pairs) if pairs else None
        yield Summary(
            task=task,
            recipe=recipe,
            sparsity=sparsity,
            count=means[key].n,
            mean=means[key].mean,
            deviation=means[key].deviation,
            measured=measured[key],
            front=key in best,
            folders=tuple(run.folder for run in group),
            chosen=chosen(group[0]),
            pairs=against.n if against else 0,
            difference=against.mean if against else None,
            low=against.low if against else None,
            high=against.high if against else None,
        )


def differences(
    runs: Iterable[RunEntry],
    metrics: Mapping[str, str],
    baseline: str,
    sparsities: Sequence[float],
) -> Iterator[Difference]:
    """Over all tasks at each sparsity, and over all sparsities; of what there are several.

    Tasks whose metric is better the lower have other units than the rest, and are left out.

    Args:
        runs: Of all recipes.
        metrics: The headline metric of each task.
        baseline: The recipe that differences are against.
        sparsities: All that the comparison has; a mean over fewer does not count.
    """
    lower = {task for task, metric in metrics.items() if Metric(metric).lower_is_better}
    values = _by_recipe(run for run in runs if run.task not in lower)
    recipes = [name for name in values if name not in (*REFERENCES, baseline)]
    shown = sorted({sparsity for name in recipes for _, sparsity, _ in values[name]})
    tasks = {task for name in recipes for task, _, _ in values[name]}
    columns: list[float | None] = [*shown] if len(tasks) > 1 else []
    if len(shown) > 1:
        columns.append(None)
    for at in columns:
        for recipe in recipes:
            pairs = [
                ((task, seed), difference)
                for (task, sparsity, seed), difference in paired(
                    values[recipe], values[baseline]
                ).items()
                if at in (None, sparsity)
            ]
            means = pooled(pairs, len(sparsities) if at is None else 1)
            if means:
                n, mean, low, high = interval(means)
                yield Difference(recipe=recipe, sparsity=at, count=n, mean=mean, low=low, high=high)


def _fronts(points: Mapping[_Key, tuple[float, float]], metrics: Mapping[str, str]) -> set[_Key]:
    """Of sparsity and metric, the best of each task; the dense models take no part."""
    best = set[_Key]()
    for task in dict.fromkeys(task for task, _, _ in points):
        sign = -1 if task in metrics and Metric(metrics[task]).lower_is_better else 1
        # As shares are shown: a stray zero more does not make a recipe the sparser one.
        best |= front(
            {
                key: (round(measured, 3), sign * mean)
                for key, (measured, mean) in points.items()
                if key[0] == task and key[1] not in REFERENCES
            }
        )
    return best


def _by_recipe(runs: Iterable[RunEntry]) -> dict[str, _Values]:
    values: dict[str, _Values] = defaultdict(dict)
    for run in runs:
        if run.value is not None:
            values[run.recipe][run.task, run.sparsity, run.seed] = run.value
    return values
