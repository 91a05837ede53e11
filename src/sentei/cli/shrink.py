"""``sentei shrink``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from sentei.cli.app import JsonOption, output, quiet_transformers, show_json, verb
from sentei.report.facts import count, percent

if TYPE_CHECKING:
    from sentei.shrink import LatencyRecord, ShrinkReport


@verb
def shrink(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Without it nothing is written.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time both models on this machine.")
    ] = False,
    length: Annotated[
        int, typer.Option(min=1, help="Tokens of the sequences that are counted and timed.")
    ] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in a timed forward pass.")] = 1,
    json: JsonOption = False,
) -> None:
    """Remove attention heads and neurons that are wholly zero: a smaller dense model.

    Its outputs are those of the sparse model. If there is nothing to remove, nothing is written.
    """
    from sentei import shrink as shrinking
    from sentei.shrink.disk import check_free

    quiet_transformers()
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    source = folder / "model" if (folder / "model" / "config.json").is_file() else folder
    if out:
        check_free(out)
    model = shrinking.load(source)
    smaller, report = shrinking.shrink(model, length=length)
    latency = None
    if measure and report.removed:
        latency = shrinking.measure(model, smaller, batch=batch, length=length)
    written = out if out and report.removed else None
    if written:
        shrinking.save(smaller, written, files=source)
    if json:
        facts = report.model_dump(mode="json") | {"removed": report.removed}
        timed = latency.model_dump(mode="json") if latency else None
        show_json(facts | {"latency": timed, "out": str(written) if written else None})
    else:
        _print(report, latency, out)


def _print(report: ShrinkReport, latency: LatencyRecord | None, out: Path | None) -> None:
    if not report.removed:
        output.print(
            "Nothing to remove: no attention head and no neuron is wholly zero"
            + (f". {out} was not written." if out else "."),
            soft_wrap=True,
        )
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "before", "after", "of it"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {
        "attention heads": report.units("head"),
        "neurons": report.units("neuron"),
        "parameters": (report.parameters_before, report.parameters_after),
        f"operations, {report.length} tokens": (report.flops_before, report.flops_after),
    }
    for name, (before, after) in rows.items():
        table.add_row(name, count(before), count(after), percent(after, before))
    if latency:
        times = f"{latency.before:.2f} ms", f"{latency.after:.2f} ms"
        table.add_row(
            f"latency, batch {latency.batch}", *times, percent(latency.after, latency.before)
        )
    output.print(table)
    if latency:
        output.print(
            f"Latency: median of {latency.runs} runs in turns, {latency.length} tokens, "
            f"{latency.device}, {latency.threads} threads.",
            soft_wrap=True,
        )
    if report.folded:
        output.print(f"{count(report.folded)} of them gave a constant, which is now in a bias.")
    how = (
        "Plain from_pretrained loads it."
        if report.stock
        else f"Load it with sentei.shrink.load: {report.reason}."
    )
    output.print(f"{f'Written to {out}. ' if out else ''}{how}", soft_wrap=True)
