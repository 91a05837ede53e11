"""``sentei augment``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from sentei.cli.app import JsonOption, errors, output, show_json, verb
from sentei.cli.options import make_settings, with_settings


@verb
@with_settings(
    "model",
    "trust_remote_code",
    "task",
    "train",
    "text_column",
    "pair_column",
    "label_column",
    "regression",
    "encoding",
    "quoting",
    "delimiter",
    "header",
    "seed",
)
def augment(
    options: dict[str, Any],
    *,
    out: Annotated[Path, typer.Option(help="File to write, .jsonl; must not exist.")],
    lm: Annotated[
        str | None,
        typer.Option(help="Masked language model for the candidates of words it has whole."),
    ] = None,
    copies: Annotated[int, typer.Option(min=1, max=10_000, help="Copies of each example.")] = 20,
    replace: Annotated[
        float, typer.Option(min=0, max=1, help="Probability that a word is replaced.")
    ] = 0.4,
    candidates: Annotated[int, typer.Option(min=1, max=10_000, help="Candidates of a word.")] = 15,
    json: JsonOption = False,
) -> None:
    """Write more training texts: words replaced by likely others, labels kept.

    Without --lm candidates are the nearest words in --model's embeddings, which are worse. The file
    has the originals too; train on it with evaluation data from elsewhere.
    """
    from rich.progress import Progress

    from sentei.models.quiet import quiet_transformers
    from sentei.run.augment import write

    quiet_transformers()
    if "model" not in options and lm:
        options["model"] = lm
    settings = make_settings(options)
    if out.suffix not in (".jsonl", ".ndjson"):
        raise ValueError(f"--out {out}: JSON lines are written; name a .jsonl file")
    with Progress(console=errors, transient=True, disable=json) as bar:
        task = bar.add_task("examples", total=None)
        written = write(
            settings,
            out,
            lm=lm,
            copies=copies,
            replace=replace,
            count=candidates,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json:
        show_json(dataclasses.asdict(written))
        return
    output.print(
        f"{out}: {written.rows:,} rows, {written.originals:,} of them the originals; "
        f"columns {', '.join(written.columns)}.\n"
        "Copies of a text resemble it: give prune an --eval file, so that none is measured on.",
        soft_wrap=True,
    )
