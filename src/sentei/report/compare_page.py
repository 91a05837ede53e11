"""The page of a comparison: charts and tables, filled into ``compare.html.j2``."""

from __future__ import annotations

from collections import defaultdict
from itertools import cycle

import yaml
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from sentei.records import REFERENCES, Comparison, Summary
from sentei.report.charts import INK, KEPT, LOSS, PRUNED, Chart, chart, legend
from sentei.report.compare_words import (
    choice,
    differences,
    factor,
    heading,
    named,
    rows,
    state,
)
from sentei.report.facts import Metric, duration
from sentei.report.html import fill

COLORS = (PRUNED, KEPT, LOSS, "#b0568f", "#8d8a2b", "#7b6bd6", "#c2554d", "#4f8f3a")
"""Mid-tones: readable on white and on black."""

MARKS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p")


def render(comparison: Comparison) -> str:
    """The whole page as text."""
    done, failed = comparison.of("done"), comparison.of("failed")
    tiles = [
        (f"{len(done)} / {len(comparison.runs)}", "runs are done"),
        (str(len(comparison.plan["recipes"])), "recipes"),
        (str(len(comparison.plan["seeds"])), "seeds"),
        (duration(comparison.seconds), "of training and evaluating, all runs together"),
    ]
    if failed:
        tiles.insert(1, (str(len(failed)), "runs failed"))
    tasks = list(comparison.plan["tasks"])
    return fill(
        "compare.html.j2",
        comparison=comparison,
        state=state(comparison),
        tiles=tiles,
        tasks=[
            (
                task,
                heading(comparison.metrics[task]),
                against_sparsity(comparison, task, f"task{number}"),
                list(rows(comparison, task)),
            )
            for number, task in enumerate(tasks)
            if task in comparison.metrics
        ],
        differences=list(differences(comparison)),
        searches=[
            (
                f"{search.task}: {choice(search)}",
                heading(comparison.metrics.get(search.task, "metric")),
                factor(comparison.metrics.get(search.task, "metric")),
                [(named(t.values), t) for t in search.trials],
            )
            for search in comparison.searches
        ],
        failed=failed,
        plan=yaml.safe_dump(comparison.plan, sort_keys=False, allow_unicode=True),
    )


def against_sparsity(comparison: Comparison, task: str, key: str) -> Chart:
    """The metric against the sparsity: a line for each recipe, its spread, and the Pareto front."""
    lines: dict[str, list[Summary]] = defaultdict(list)
    for summary in comparison.summaries:
        if summary.task == task:
            lines[summary.recipe].append(summary)

    times = factor(comparison.metrics[task])

    def draw(axes: Axes) -> None:
        styles = zip(cycle(COLORS), cycle(MARKS), strict=False)
        for recipe, (color, mark) in zip(comparison.plan["recipes"], styles, strict=False):
            points = sorted(lines.get(recipe, []), key=lambda summary: summary.measured)
            if not points:
                continue
            axes.errorbar(
                [point.measured for point in points],
                [times * point.mean for point in points],
                yerr=[times * (point.deviation or 0.0) for point in points],
                color=color,
                marker=mark,
                markersize=4,
                capsize=3,
                label=recipe,
            )
        best = [summary for line in lines.values() for summary in line if summary.front]
        if best:
            axes.plot(
                [summary.measured for summary in best],
                [times * summary.mean for summary in best],
                ls="",
                marker="o",
                markersize=10,
                markerfacecolor="none",
                color=INK,
                label="Pareto front",
            )
        for reference, dashes in zip(REFERENCES, ((1, 2), (4, 2)), strict=True):
            for summary in lines.get(reference, []):
                at = times * summary.mean
                axes.axhline(at, color=INK, ls=(0, dashes), lw=1, label=reference)
        axes.set_xlabel("sparsity of the prunable weights")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:.6g} %"))
        legend(axes)

    metric = Metric(comparison.metrics[task]).label
    caption = (
        f"{heading(comparison.metrics[task])} on the evaluation data: mean over seeds, bars of one "
        "sample standard deviation. Ringed: no other recipe is as sparse and as good."
    )
    return chart(key, f"{task}: {metric} against sparsity", caption, draw, size=(6.4, 3.6))
