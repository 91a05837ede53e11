"""``sentei shrink``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentei.cli.app import JsonOption, show_json, verb
from sentei.cli.options import with_settings
from sentei.run.options import dashed, task_from
from sentei.tasks.classification import Classification

if TYPE_CHECKING:
    from sentei.run.vocabulary import Texts


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
@with_settings(
    "trust_remote_code", "text_column", "pair_column", "encoding", "quoting", "delimiter", "header"
)
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
    from sentei.cli.smaller import facts_of, print_smaller
    from sentei.models.folder import check_free
    from sentei.models.quiet import quiet_transformers
    from sentei.run.shrink import locate, shrink_folder

    quiet_transformers()
    trust = options.pop("trust_remote_code", False)
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
        trust_remote_code=trust,
    )
    if json:
        show_json(facts_of(smaller))
    else:
        print_smaller(smaller, out, stock=stock)


def _read(options: dict[str, Any], vocabulary: list[str], least: int, model: Path) -> Texts | None:
    from sentei.run.vocabulary import vocabulary_texts

    if not vocabulary:
        if options or least > 1:
            option = dashed(next(iter(options), "least"))
            raise ValueError(f"{option} says how --vocabulary is read, and that is not given")
        return None
    names = [os.path.expanduser(name) for name in vocabulary]
    return vocabulary_texts(names, task_from(Classification, options), model)
