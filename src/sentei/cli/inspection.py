"""What ``sentei inspect`` prints."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from sentei.cli.app import output
from sentei.report.facts import count, percent, size
from sentei.run.inspect import Inspection


def print_inspection(run: Inspection, *, names: bool) -> None:
    """Print what a run would do; ``names`` lists every prunable weight."""
    model = f"{run.model} ({run.model_type})"
    output.print(Text.assemble((run.method, "bold"), f" on {model}, {run.task}"))
    _print_weights(run)
    _print_training(run)
    output.print(_picture(run))
    if run.teacher:
        output.print(f"\nTeacher: {run.teacher.name}; {run.teacher.learns}")
        for note in run.teacher.notes:
            output.print(f"Note: {note}")
    if run.untaught:
        output.print(f"\nTeacher: none; {run.untaught}")
    for note in run.notes:
        output.print(f"Note: {note}")
    _print_bytes(run)
    for name in run.sites if names else ():
        output.print(f"  {name}")


def _print_weights(run: Inspection) -> None:
    """What would be pruned, and what left alone."""
    output.print(
        f"Would prune {percent(run.target)} of {count(run.prunable)} weights, "
        f"{percent(run.target_all)} of all {count(run.parameters)} parameters.\n"
        f"Chosen by {run.rule}."
    )
    if run.note:
        output.print(f"Note: {run.note}")

    table = _table("prunable", "matrices", "shape", "weights")
    for role in run.roles:
        shapes = ", ".join("x".join(map(str, shape)) for shape in role.shapes)
        table.add_row(role.role, str(role.sites), shapes, f"{role.weights:,}")
    output.print(table)

    table = _table("left alone", "tensors", "weights", "such as")
    for skipped in run.skipped:
        table.add_row(
            skipped.reason, str(skipped.tensors), f"{skipped.weights:,}", skipped.examples[0]
        )
    output.print(table)


def _print_training(run: Inspection) -> None:
    """The data, and how long the run would train on them."""
    labels = ", ".join(f"{label} {number:,}" for label, number in list(run.labels.items())[:8])
    output.print(f"Training data:   {run.train_source}")
    output.print(f"Evaluation data: {run.eval_source}")
    if labels:
        output.print(f"Labels:          {labels}{', ...' if len(run.labels) > 8 else ''}")
    if run.features:
        output.print(f"Training reads:  {run.features}")
    if run.truncated is not None:
        output.print(f"At the length limit: {percent(run.truncated)} of the training texts")
    dense = f"{run.dense_steps:,} dense steps, then " if run.dense_steps else ""
    steps = f"{run.steps:,} steps in {run.precision}, {run.updates:,} pruning decisions"
    if not run.steps:
        steps = "one pruning decision without training"
    if run.calibration:
        steps += f", by the inputs of {run.calibration:,} examples"
    output.print(f"Training:        {dense}{steps}\n")


def _print_bytes(run: Inspection) -> None:
    """Memory while training, and files."""
    table = _table("memory in training (activations on top)", "bytes")
    for what in ("weights", "gradients", "optimizer", "pruner", "teacher"):
        if what != "teacher" or run.teacher:
            table.add_row(what, size(getattr(run.memory, what)))
    output.print(table)
    table = _table("weights on disk", "bytes")
    table.add_row("plain safetensors, dense or sparse", size(run.sizes.dense_file))
    table.add_row("packed, about", size(run.sizes.packed))
    table.add_row("packed in bf16, about", size(run.sizes.packed_bf16))
    table.add_row("packed in int8, about", size(run.sizes.packed_int8))
    table.add_row("one checkpoint of this run", size(run.checkpoint_bytes))
    if run.teacher and run.teacher.cache_bytes:
        table.add_row("the teacher's answers to all texts", size(run.teacher.cache_bytes))
    output.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        numeric = column in ("matrices", "weights", "tensors", "bytes")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    return table


def _picture(run: Inspection, width: int = 64, height: int = 8) -> str:
    """The schedule: sparsity against steps, eight rows of blocks."""
    blocks = " ▁▂▃▄▅▆▇█"
    last, top = len(run.schedule) - 1, run.target or 1.0
    levels = [run.schedule[round(i * last / (width - 1))][1] / top for i in range(width)]
    rows = []
    for row in range(height, 0, -1):
        cells = (round(min(max(level * height - row + 1, 0), 1) * 8) for level in levels)
        label = percent(run.target) if row == height else ""
        rows.append(f"{label:>8} |" + "".join(blocks[cell] for cell in cells))
    steps = f"{run.steps:,} steps"
    rows.append(f"{'0 %':>8} +" + "-" * width)
    rows.append(f"{'':>8}  step 0" + f"{steps:>{width - 6}}")
    return "\n".join(rows)
