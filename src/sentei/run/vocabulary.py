"""The texts that a vocabulary is cut to: those of files, or of a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sentei.data.formats import lines, read_text, suffix
from sentei.data.sources import read
from sentei.run.settings import Settings
from sentei.tasks.classification import Classification

OF_RUN: Final = "run"
"""In place of a file: what a run was trained and evaluated on."""

Texts = list[str | tuple[str, str]]


def vocabulary_texts(names: Iterable[str], task: Classification, model: Path) -> Texts:
    """All texts, or pairs of texts, that are named.

    Args:
        names: Files and folders, or :data:`OF_RUN`.
        task: Says which columns of the files hold them, and how they are written.
        model: Folder of the model whose vocabulary it is.

    Raises:
        ValueError: A file cannot be used, or the model is not of a run with texts; names the place.
    """
    texts = Texts()
    for name in names:
        texts += _of_run(model) if name == OF_RUN else read_texts(Path(name), task)
    return texts


def read_texts(path: Path, task: Classification) -> Texts:
    """The texts, or pairs of texts, of a file or of a folder written by ``save_to_disk``.

    A .txt file without named columns has a text in each line; everything else is a table.

    Raises:
        ValueError: It is missing, empty or damaged, or has no such column; names the place.
    """
    if path.is_file() and suffix(path) == ".txt" and task.text_column is None:
        return [line for line in lines(read_text(path, task.encoding)) if line.strip()]
    return _joined(*task.texts(read(path, task.format(), ("train",))))


def _of_run(model: Path) -> Texts:
    """The texts that a run was trained and evaluated on; ``model`` is the folder of its model."""
    settings = Settings.read(model.parent / "run.yaml")
    task, texts = settings.task, Texts()
    for examples in task.load(settings.training.seed):
        if not task.columns(examples):
            raise ValueError(
                f"--vocabulary {OF_RUN}: {model.parent} is a run of --kind {task.label}, whose "
                "data are more than texts or pairs; name files with the texts instead"
            )
        texts += _joined(examples.texts, examples.pairs)
    return texts


def _joined(texts: list[str], pairs: list[str] | None) -> Texts:
    return list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
