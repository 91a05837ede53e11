"""What ``sentei shrink`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sentei.cli.app import output
from sentei.report.facts import count, percent
from sentei.run.shrink import Smaller
from sentei.shrink import VocabularyReport


def facts_of(smaller: Smaller) -> dict[str, Any]:
    """What was removed, as plain data."""
    report, vocabulary, latency = smaller.report, smaller.vocabulary, smaller.latency
    facts = report.model_dump(mode="json") | {"removed": report.removed}
    if vocabulary:
        facts["vocabulary"] = vocabulary.model_dump(mode="json") | {"removed": vocabulary.removed}
    facts["latency"] = latency.model_dump(mode="json") if latency else None
    return facts | {"out": str(smaller.out) if smaller.out else None}


def print_smaller(smaller: Smaller, out: Path | None, *, stock: bool) -> None:
    """Print what was removed; ``out`` and ``stock`` are what was typed."""
    report, vocabulary, latency = smaller.report, smaller.vocabulary, smaller.latency
    if not smaller.removed:
        reason = "can go from every layer and be said in a config" if stock else "is wholly zero"
        output.print(
            f"Nothing to remove: no attention head and no neuron {reason}"
            + (", and the texts use every token" if vocabulary else "")
            + (f". {out} was not written." if out else "."),
            soft_wrap=True,
        )
        return
    output.print(_table(smaller))
    if latency:
        output.print(
            f"Latency: median of {latency.runs} runs in turns, {latency.length} tokens, "
            f"{latency.device}, {latency.threads} threads.",
            soft_wrap=True,
        )
    if report.folded:
        output.print(f"{count(report.folded)} of them gave a constant, which is now in a bias.")
    if vocabulary:
        output.print(_in_words(vocabulary), soft_wrap=True)
    how = (
        "Plain from_pretrained loads it."
        if report.stock
        else f"Load it with sentei.shrink.load: {report.reason}."
    )
    output.print(f"{f'Written to {out}. ' if out else ''}{how}", soft_wrap=True)


def _table(smaller: Smaller) -> Table:
    """Before and after."""
    report, vocabulary, latency = smaller.report, smaller.vocabulary, smaller.latency
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "before", "after", "of it"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {"attention heads": report.units("head"), "neurons": report.units("neuron")}
    if vocabulary:
        rows["vocabulary"] = vocabulary.tokens_before, vocabulary.tokens_after
    rows["parameters"] = report.parameters_before, report.parameters_after
    rows[f"operations, {report.length} tokens"] = report.flops_before, report.flops_after
    for name, (before, after) in rows.items():
        table.add_row(name, count(before), count(after), percent(after, before))
    if latency:
        times = f"{latency.before:.2f} ms", f"{latency.after:.2f} ms"
        table.add_row(
            f"latency, batch {latency.batch}", *times, percent(latency.after, latency.before)
        )
    return table


def _in_words(vocabulary: VocabularyReport) -> str:
    """What went, and what it means for texts."""
    same = (
        f"{count(vocabulary.changed)} of the {count(vocabulary.texts)} texts are split otherwise "
        "than before"
        if vocabulary.changed
        else f"The {count(vocabulary.texts)} texts are split as before"
    )
    dropped = percent(vocabulary.removed, vocabulary.rows_before)
    return (
        f"{dropped} of the embedding's rows are dropped. {same}; texts with other words are split "
        "into more and smaller tokens."
    )
