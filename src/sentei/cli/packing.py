"""What ``sentei pack`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from sentei.cli.app import output
from sentei.messages import counted
from sentei.models.folder import is_shrunk
from sentei.pack import Packed
from sentei.report.facts import percent, size


def facts_of(packed: Packed, out: Path) -> dict[str, Any]:
    """What packing came to, as plain data."""
    return packed.model_dump(mode="json") | {"out": str(out)}


def print_packed(packed: Packed, out: Path) -> None:
    """Print what packing came to."""
    output.print(_table(packed))
    worst = max(packed.tensors, key=lambda one: one.error, default=None)
    output.print(
        f"Rounding changed {worst.name} most, by {percent(worst.error)} of its size."
        if worst and worst.error
        else "No number was rounded.",
        soft_wrap=True,
    )
    loader = "sentei.shrink.load" if is_shrunk(out) else "plain from_pretrained"
    output.print(f"Written to {out}. After `import sentei`, {loader} loads it.", soft_wrap=True)


def _table(packed: Packed) -> Table:
    """Before and after."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "written as", "before", "after", "smaller"):
        table.add_column(column, justify="left" if column in ("", "written as") else "right")
    for what, dense in (("sparse", False), ("embeddings", True)):
        tensors = [one for one in packed.tensors if (one.coding == "dense") is dense]
        if tensors:
            before, after = (sum(getattr(one, name) for one in tensors) for name in _BYTES)
            kinds = ", ".join(dict.fromkeys(one.values for one in tensors))
            _add(table, f"{counted(len(tensors), 'tensor')}: {what}", kinds, before, after)
    _add(table, "all others", "they were", packed.plain, packed.plain)
    _add(table, "files of weights", "", packed.bytes_before, packed.bytes)
    return table


_BYTES = ("bytes_before", "bytes")


def _add(table: Table, what: str, kinds: str, before: int, after: int) -> None:
    times = f"{before / after:.1f} x" if after else ""
    table.add_row(what, kinds, size(before), size(after), times)
