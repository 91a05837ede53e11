"""The report on a terminal: the sentence, the layers as bars, sizes and time."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sentei.records import RunReport
from sentei.report.facts import (
    LayerTable,
    Share,
    count,
    duration,
    headline,
    left,
    percent,
    size,
    together,
    unit_name,
    units_by_layer,
)

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def print_console(report: RunReport, console: Console) -> None:
    """Prints a summary that fits 80 columns; without colour where ``console`` is no terminal."""
    plain = console.options.ascii_only
    console.print(Text(report.title, style="bold"))
    console.print(Text(f"{report.pruning.method} on {report.model}, {report.task}", style="dim"))
    console.print()
    console.print(Text(headline(report)))
    console.print()
    console.print(_layers(report, plain))
    console.print()
    for kind, layers in units_by_layer(report.pruning.units).items():
        console.print(_units(kind, layers, plain))
        console.print()
    console.print(_sizes(report, plain))
    if report.seconds:
        console.print()
        parts = (f"{phase} {duration(value)}" for phase, value in report.seconds.items())
        console.print(Text("Time: " + ", ".join(parts)))


def _layers(report: RunReport, plain: bool) -> Table:
    table = _table("Layer", "Zero", "Sparsity", "Kept", "Weights")
    for layer, share in LayerTable(report.pruning.sites).by_layer.items():
        _row(table, "outside layers" if layer is None else str(layer), share, plain)
    table.add_section()
    _row(table, "all", Share(report.pruning.prunable, report.pruning.pruned), plain)
    return table


def _row(table: Table, label: str, share: Share, plain: bool) -> None:
    kept = count(share.weights - share.pruned)
    sparsity = percent(share.pruned, share.weights)
    table.add_row(label, _bar(share.sparsity, plain), sparsity, kept, count(share.weights))


def _units(kind: str, layers: dict[int | None, Share], plain: bool) -> Table:
    table = _table("Layer", "Removed", f"{unit_name(kind).capitalize()} left")
    for layer, share in layers.items():
        label = "outside layers" if layer is None else str(layer)
        table.add_row(label, _bar(share.sparsity, plain), left(share))
    table.add_section()
    whole = together(layers.values())
    table.add_row("all", _bar(whole.sparsity, plain), left(whole))
    return table


def _sizes(report: RunReport, plain: bool) -> Table:
    sizes = report.sizes
    table = _table("Weights on disk", "", "Bytes", "Of dense")
    for label, value in (
        ("dense file", sizes.dense_file),
        ("this file", sizes.sparse_file),
        ("packed", sizes.packed),
        ("packed, bf16", sizes.packed_bf16),
        ("packed, int8", sizes.packed_int8),
    ):
        share = value / sizes.dense_file if sizes.dense_file else 0.0
        table.add_row(label, _bar(share, plain), size(value), percent(share))
    return table


def _table(label: str, bar: str, *numbers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(label, no_wrap=True, min_width=16)
    table.add_column(bar, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def _bar(share: float, plain: bool, width: int = 20) -> Text:
    """A bar of ``width`` characters, exact to an eighth of one where Unicode is at hand."""
    share = min(max(share, 0.0), 1.0)
    if plain:
        return Text(("#" * round(share * width)).ljust(width, "."))
    full, eighths = divmod(round(share * width * 8), 8)
    bar = "█" * full + (_EIGHTHS[eighths] if eighths else "")
    return Text.assemble((bar, "green"), ("·" * (width - len(bar)), "dim"))
