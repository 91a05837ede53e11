"""Speeds on a terminal: a table for each workload, then what follows."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sentei.records import SpeedReport
from sentei.report.speed import headings, legend, rows, title, zeros


def print_speed(report: SpeedReport, console: Console) -> None:
    """Prints all that was timed, what was not and why, and the sentences last."""
    console.print(Text(report.model, style="bold"))
    console.print(Text(zeros(report)))
    console.print(Text(f"{report.machine.get('cpu', '')}. {legend(report)}", style="dim"))
    heads = headings(report)
    for workload in report.workloads:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for name in heads:
            left = name == heads[0]
            table.add_column(name, justify="left" if left else "right", no_wrap=True)
        for row in rows(report, workload):
            table.add_row(*row[: len(heads)])
        console.print()
        console.print(Text(title(workload), style="bold"))
        console.print(table)
    console.print()
    for sentence in report.absent:
        console.print(Text(f"Not timed: {sentence}", style="dim"))
    for sentence in report.words:
        console.print(Text(sentence))
