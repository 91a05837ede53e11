"""The texts that a vocabulary is cut to: those of files, or of a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sentei.data.formats import read_text
from sentei.data.sources import read
from sentei.data.table import Layout
from sentei.run.settings import Settings
from sentei.tasks import kinds
from sentei.tasks.texts import Examples, text_cells, text_columns

OF_RUN: Final = "run"
"""In place of a file: what a run was trained and evaluated on."""

Texts = list[str | tuple[str, str]]


def vocabulary_texts(names: Iterable[str], layout: Layout, model: Path) -> Texts:
    """All texts, or pairs of texts, that are named.

    Args:
        names: Files and folders, or :data:`OF_RUN`.
        layout: Columns and format of the files.
        model: Folder of the model whose vocabulary it is.

    Raises:
        ValueError: A file cannot be used, or the model is not of a run with texts; names the place.
    """
    texts = Texts()
    for name in names:
        texts += _of_run(model) if name == OF_RUN else read_texts(Path(name), layout)
    return texts


def read_texts(path: Path, layout: Layout) -> Texts:
    """The texts, or pairs of texts, of a file or of a folder written by ``save_to_disk``.

    A .txt file without named columns has a text in each line; everything else is a table.

    Raises:
        ValueError: It is missing, empty or damaged, or has no such column; names the place.
    """
    if path.suffix.lower() == ".txt" and layout.text_column is None:
        # not splitlines(), which also splits at U+2028, U+0085 and others inside a text
        return [line for line in read_text(path, layout.encoding).split("\n") if line.strip()]
    table = read(path, layout, ("train",))
    first, second = text_columns(table, layout)
    return _joined(
        text_cells(table, first, "--text-column"),
        None if second is None else text_cells(table, second, "--pair-column"),
    )


def _of_run(model: Path) -> Texts:
    """The texts that a run was trained and evaluated on; ``model`` is the folder of its model."""
    kind = kinds.of(Settings.read(model.parent / "run.yaml"))
    texts = Texts()
    for examples in kind.load():
        if not isinstance(examples, Examples):
            raise ValueError(
                f"--vocabulary {OF_RUN}: {model.parent} is a run of --kind {kind.name}, whose data "
                "are more than texts or pairs; name files with the texts instead"
            )
        texts += _joined(examples.texts, examples.pairs)
    return texts


def _joined(texts: list[str], pairs: list[str] | None) -> Texts:
    return list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
