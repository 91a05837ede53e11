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

if TYPE_CHECKING:
    from sentei.run.vocabulary import Texts
    from sentei.shrink import LatencyRecord, ShrinkReport, VocabularyReport


@verb
@with_settings("text_column", "pair_column", "encoding", "quoting", "delimiter", "header")
def shrink(
    given: dict[str, Any],
    *,
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Without it nothing is written.")
    ] = None,
    stock: Annotated[
        bool,
        typer.Option(
            "--stock",
            help="Remove only what leaves a model that plain from_pretrained loads: of every layer "
            "as many heads and neurons as all of them can spare, or none.",
        ),
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also time both models on this machine.")
    ] = False,
    length: Annotated[
        int, typer.Option(min=1, help="Tokens of the sequences that are counted and timed.")
    ] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in a timed forward pass.")] = 1,
    vocabulary: Annotated[
        list[str] | None,
        typer.Option(
            help="Also remove the tokens that no text of this file uses, .txt (a text a line), "
            ".csv, .tsv, .jsonl, .json or a folder of datasets.save_to_disk; say it again for "
            "more. `run` is what the run was trained and evaluated on."
        ),
    ] = None,
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
    from transformers import AutoTokenizer

    from sentei import shrink as shrinking
    from sentei.models.folder import check_free
    from sentei.models.quiet import quiet_transformers

    quiet_transformers()
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    source = folder / "model" if (folder / "model" / "config.json").is_file() else folder
    if out:
        check_free(out)
    texts = _read(given, vocabulary or [], least, source)
    model = shrinking.load(source)
    smaller, report = shrinking.shrink(model, stock=stock, length=length)
    tokenizer, words = None, None
    if vocabulary:
        smaller, tokenizer, words = shrinking.shrink_vocabulary(
            smaller, AutoTokenizer.from_pretrained(source), texts, least=least
        )
        report = report.model_copy(update={"parameters_after": words.parameters_after})
    removed = bool(report.removed or (words and words.removed))
    latency = None
    if measure and removed:
        latency = shrinking.latency(model, smaller, batch=batch, length=length)
    written = out if out and removed else None
    if written:
        shrinking.save(smaller, written, files=source, tokenizer=tokenizer)
    if json:
        facts = report.model_dump(mode="json") | {"removed": report.removed}
        if words:
            facts["vocabulary"] = words.model_dump(mode="json") | {"removed": words.removed}
        timed = latency.model_dump(mode="json") if latency else None
        show_json(facts | {"latency": timed, "out": str(written) if written else None})
    else:
        _print(report, words, latency, out, stock)


def _read(given: dict[str, Any], vocabulary: list[str], least: int, model: Path) -> Texts:
    from sentei.data.table import Layout
    from sentei.run.vocabulary import vocabulary_texts

    if not vocabulary and (given or least > 1):
        option = next(iter(given), "least").replace("_", "-")
        raise ValueError(f"--{option} says how --vocabulary is read, and that is not given")
    return vocabulary_texts(vocabulary, Layout(**given), model)


def _print(
    report: ShrinkReport,
    words: VocabularyReport | None,
    latency: LatencyRecord | None,
    out: Path | None,
    stock: bool,
) -> None:
    if not report.removed and not (words and words.removed):
        reason = "can go from every layer and be said in a config" if stock else "is wholly zero"
        output.print(
            f"Nothing to remove: no attention head and no neuron {reason}"
            + (", and the texts use every token" if words else "")
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
        **({"vocabulary": (words.tokens_before, words.tokens_after)} if words else {}),
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
    if words:
        output.print(_said(words), soft_wrap=True)
    how = (
        "Plain from_pretrained loads it."
        if report.stock
        else f"Load it with sentei.shrink.load: {report.reason}."
    )
    output.print(f"{f'Written to {out}. ' if out else ''}{how}", soft_wrap=True)


def _said(words: VocabularyReport) -> str:
    """What went, and what it means for texts."""
    same = (
        f"{count(words.changed)} of the {count(words.texts)} texts are split otherwise than before"
        if words.changed
        else f"The {count(words.texts)} texts are split as before"
    )
    return (
        f"{percent(words.removed, words.rows_before)} of the embedding's rows are dropped. {same}; "
        "texts with other words are split into more and smaller tokens."
    )
