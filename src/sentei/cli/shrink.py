"""``sentei shrink``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from sentei.cli.app import JsonOption, output, show_json, verb
from sentei.cli.options import with_settings
from sentei.report.facts import count, percent
from sentei.run.options import dashed, task_from
from sentei.tasks.classification import Classification

if TYPE_CHECKING:
    from sentei.run.shrink import Smaller
    from sentei.run.vocabulary import Texts
    from sentei.shrink import VocabularyReport


OutOption = Annotated[
    Path | None, typer.Option(help="Folder to write to. Without it nothing is written.")
]
StockOption = Annotated[
    bool,
    typer.Option(
        "--stock",
        help="Remove only what leaves a model that plain from_pretrained loads: of every layer "
        "as many heads and neurons as all of them can spare, or none.",
    ),
]
VocabularyOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Also remove the tokens that no text of this file uses, .txt (a text a line), "
        ".csv, .tsv, .jsonl, .json, .parquet, a folder or a dataset on the hub; say it again for "
        "more. `run` is what the run was trained and evaluated on."
    ),
]


@verb
@with_settings("text_column", "pair_column", "encoding", "quoting", "delimiter", "header")
def shrink(
    options: dict[str, Any],
    *,
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")],
    out: OutOption = None,
    stock: StockOption = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time both models on this machine.")
    ] = False,
    length: Annotated[
        int, typer.Option(min=1, help="Tokens of the sequences that are counted and timed.")
    ] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in a timed forward pass.")] = 1,
    vocabulary: VocabularyOption = None,
    least: Annotated[
        int, typer.Option(min=1, help="How often a token must occur in these texts to stay.")
    ] = 1,
    json: JsonOption = False,
) -> None:
    """Remove attention heads and neurons that are wholly zero: a smaller dense model.

    Its outputs are those of the sparse model. With --vocabulary the tokens go that no text uses;
    other texts are then split into more and smaller ones. If there is nothing to remove, nothing is
    written.
    """
    from sentei.models.folder import check_free
    from sentei.models.quiet import quiet_transformers
    from sentei.run.shrink import locate, shrink_folder

    quiet_transformers()
    source = locate(folder)
    if out:
        check_free(out)
    smaller = shrink_folder(
        source,
        out,
        stock=stock,
        length=length,
        batch=batch if measure else None,
        texts=_read(options, vocabulary or [], least, source),
        least=least,
    )
    if json:
        show_json(_facts(smaller))
    else:
        _print(smaller, out, stock)


def _read(options: dict[str, Any], vocabulary: list[str], least: int, model: Path) -> Texts | None:
    from sentei.run.vocabulary import vocabulary_texts

    if not vocabulary:
        if options or least > 1:
            option = dashed(next(iter(options), "least"))
            raise ValueError(f"{option} says how --vocabulary is read, and that is not given")
        return None
    return vocabulary_texts(vocabulary, task_from(Classification, options), model)


def _facts(smaller: Smaller) -> dict[str, Any]:
    report, vocabulary, latency = smaller.report, smaller.vocabulary, smaller.latency
    facts = report.model_dump(mode="json") | {"removed": report.removed}
    if vocabulary:
        facts["vocabulary"] = vocabulary.model_dump(mode="json") | {"removed": vocabulary.removed}
    facts["latency"] = latency.model_dump(mode="json") if latency else None
    return facts | {"out": str(smaller.out) if smaller.out else None}


def _print(smaller: Smaller, out: Path | None, stock: bool) -> None:
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
