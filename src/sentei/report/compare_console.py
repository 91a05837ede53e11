"""A comparison on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sentei.records import Comparison
from sentei.report.compare_words import choice, differences, heading, rows, state


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Prints a table for each task, the differences over all, and what failed."""
    console.print(Text(comparison.title, style="bold"))
    console.print(Text(state(comparison)))
    against = f"against {comparison.baseline}"
    for task in comparison.plan["tasks"]:
        if task not in comparison.metrics:
            continue
        metric = heading(comparison.metrics[task])
        table = _table(task, "sparsity", "runs", metric, against, "front")
        for row in rows(comparison, task):
            front = "*" if row.front else ""
            table.add_row(row.recipe, row.sparsity, row.runs, row.value, row.against, front)
        console.print()
        console.print(table)
        for search in comparison.searches:
            if search.task == task:
                console.print(Text(choice(search), style="dim"))
    over_all = list(differences(comparison))
    if over_all:
        console.print()
        table = _table("over all", "sparsity", "tasks × seeds", against)
        for words in over_all:
            table.add_row(*words)
        console.print(table)
    for run in comparison.of("failed"):
        console.print(Text.assemble((f"{run.folder} failed: ", "red"), run.error or ""))


def _table(label: str, *numbers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(label, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right")
    return table
