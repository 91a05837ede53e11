"""``sentei inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from sentei.cli.app import JsonOption, output, show_json, verb
from sentei.cli.options import (
    FreezeOption,
    MethodOption,
    PatternOption,
    RecipeOption,
    SetOption,
    SparsityOption,
    make_settings,
    with_settings,
)
from sentei.report.facts import count, percent, size
from sentei.run.settings import check_output

if TYPE_CHECKING:
    from sentei.run.inspect import Inspection


@verb
@with_settings()
def inspect(
    given: dict[str, Any],
    *,
    method: MethodOption = None,
    sparsity: SparsityOption = None,
    pattern: PatternOption = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    freeze_masks: FreezeOption = False,
    out: Annotated[Path | None, typer.Option(help="The folder the run would write to.")] = None,
    names: Annotated[bool, typer.Option("--names", help="List every prunable weight.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what `prune` with the same options would do, without training."""
    from sentei.models.quiet import quiet_transformers
    from sentei.run.inspect import check_disk
    from sentei.run.inspect import inspect as describe
    from sentei.run.prepare import prepare

    quiet_transformers()
    settings = make_settings(
        given, method, sparsity, recipe, overrides, pattern, freeze_masks=freeze_masks
    )
    if out:
        check_output(out)
    prepared = prepare(settings)
    if out:
        check_disk(prepared, out)
    found = describe(prepared)
    if json:
        show_json(found)
        return
    _print(found)
    if names:
        for name in found.sites:
            output.print(f"  {name}")


def _print(found: Inspection) -> None:
    output.print(f"[bold]{found.method}[/] on {found.model} ({found.model_type}), {found.task}")
    output.print(
        f"Would prune {percent(found.target)} of {count(found.prunable)} weights, "
        f"{percent(found.target_all)} of all {count(found.parameters)} parameters.\n"
        f"Chosen by {found.rule}."
    )
    if found.note:
        output.print(f"Note: {found.note}")

    table = _table("prunable", "matrices", "shape", "weights")
    for role in found.roles:
        shapes = ", ".join("x".join(map(str, shape)) for shape in role.shapes)
        table.add_row(role.role, str(role.sites), shapes, f"{role.weights:,}")
    output.print(table)

    table = _table("left alone", "tensors", "weights", "such as")
    for skipped in found.skipped:
        table.add_row(
            skipped.reason, str(skipped.tensors), f"{skipped.weights:,}", skipped.examples[0]
        )
    output.print(table)

    labels = ", ".join(f"{label} {number:,}" for label, number in list(found.labels.items())[:8])
    output.print(f"Training data:   {found.train_source}")
    output.print(f"Evaluation data: {found.eval_source}")
    if labels:
        output.print(f"Labels:          {labels}{', ...' if len(found.labels) > 8 else ''}")
    if found.features:
        output.print(f"Training reads:  {found.features}")
    if found.truncated is not None:
        output.print(f"At the length limit: {percent(found.truncated)} of the training texts")
    dense = f"{found.dense_steps:,} dense steps, then " if found.dense_steps else ""
    output.print(
        f"Training:        {dense}{found.steps:,} steps in {found.precision}, "
        f"{found.updates:,} pruning decisions\n"
    )
    output.print(_picture(found))
    if found.teacher:
        output.print(f"\nTeacher: {found.teacher.name}; {found.teacher.learns}")
        for note in found.teacher.notes:
            output.print(f"Note: {note}")
    if found.untaught:
        output.print(f"\nTeacher: none; {found.untaught}")
    for note in found.notes:
        output.print(f"Note: {note}", markup=False)

    memory = found.memory
    table = _table("memory in training (activations on top)", "bytes")
    for what in ("weights", "gradients", "optimizer", "pruner", "teacher"):
        if what != "teacher" or found.teacher:
            table.add_row(what, size(getattr(memory, what)))
    output.print(table)
    table = _table("weights on disk", "bytes")
    table.add_row("plain safetensors, dense or sparse", size(found.sizes.dense_file))
    table.add_row("bitmask and kept values", size(found.sizes.bitmask_same_dtype))
    table.add_row("the same, everything in 16 bits", size(found.sizes.bitmask_half))
    table.add_row("one checkpoint of this run", size(found.checkpoint_bytes))
    if found.teacher and found.teacher.cache_bytes:
        table.add_row("the teacher's answers to all texts", size(found.teacher.cache_bytes))
    output.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numeric = column in ("matrices", "weights", "tensors", "bytes")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    return table


def _picture(found: Inspection, width: int = 64, height: int = 8) -> str:
    """The schedule: sparsity against steps, eight rows of blocks."""
    blocks = " ▁▂▃▄▅▆▇█"
    last, top = len(found.schedule) - 1, found.target or 1.0
    levels = [found.schedule[round(i * last / (width - 1))][1] / top for i in range(width)]
    rows = []
    for row in range(height, 0, -1):
        cells = (round(min(max(level * height - row + 1, 0), 1) * 8) for level in levels)
        label = percent(found.target) if row == height else ""
        rows.append(f"{label:>8} |" + "".join(blocks[cell] for cell in cells))
    steps = f"{found.steps:,} steps"
    rows.append(f"{'0 %':>8} +" + "-" * width)
    rows.append(f"{'':>8}  step 0" + f"{steps:>{width - 6}}")
    return "\n".join(rows)
