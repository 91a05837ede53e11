"""Labelled text from files, saved datasets or the hub.

Every source becomes :class:`Examples` through the same checks. Whatever is wrong with the data is
said before training starts, as a ValueError with the place, the value, the reason and the fix.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

from sentei.data import hub
from sentei.data.holdout import set_aside
from sentei.data.labels import renumber
from sentei.data.sources import Source, from_dataset, read, split_names
from sentei.data.table import Layout, Table
from sentei.messages import counted, listing, short
from sentei.tasks.catalogue import Task, layout_of

MAX_CLASSES: Final = 1000
"""More distinct whole numbers than this in a label column are taken for values, not classes."""

_OBVIOUS: Final[tuple[tuple[str, str | None], ...]] = (
    ("text", None),
    ("sentence", None),
    ("content", None),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
)
EVAL_SPLITS: Final = (
    "validation",
    "validation_matched",
    "val",
    "valid",
    "dev",
    "eval",
    "test",
)
"""What a split for evaluation is called, the first that is there."""


@dataclass(frozen=True)
class Examples:
    """Labelled texts.

    ``labels`` are indices into ``label_names`` (classification) or finite values (regression,
    where ``label_names`` is empty). ``source`` says in words where they come from.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[int] | list[float]
    label_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.texts)

    def counts(self) -> dict[str, int]:
        """How often each class occurs, the most frequent first; empty for regression."""
        names = self.label_names
        found = Counter(names[int(label)] for label in self.labels) if names else Counter[str]()
        return dict(found.most_common())

    def relabel(self, label_names: Sequence[str]) -> Self:
        """The same examples under another order of the class names, such as a saved model's.

        A model that only has the placeholder names LABEL_0, LABEL_1, ... takes the labels 0, 1, ...

        Raises:
            ValueError: If a label that occurs has no place in ``label_names``.
        """
        if not self.label_names:
            return self
        index = renumber(self.counts(), label_names, self.source)
        labels = [index[self.label_names[int(label)]] for label in self.labels]
        return replace(self, labels=labels, label_names=tuple(label_names))


# ---------------------------------------------------------------------------- loading


def load_file(
    path: Source,
    layout: Layout,
    *,
    label_names: Sequence[str] | None = None,
    splits: Sequence[str] = EVAL_SPLITS,
) -> Examples:
    """The examples of one file, or of a folder written by ``datasets.save_to_disk``.

    Args:
        path: .csv, .tsv, .txt (tab separated), .jsonl, .ndjson, .json (a list of objects), or a
            folder; of a folder with several splits the one for evaluation is read.
        layout: Its columns and format.
        label_names: Class names in the order a model knows them; by default they are taken from
            the labels found, in numerical order if all are whole numbers, else alphabetical.
        splits: What the split for evaluation may be called, the first that is there.

    Raises:
        ValueError: If the data cannot be used; the message names the place and the fix.
    """
    found = examples(read(path, layout, splits), layout)
    return found if label_names is None else found.relabel(label_names)


def load_files(
    train: Source,
    evaluation: Source | None,
    layout: Layout,
    *,
    splits: Sequence[str] = EVAL_SPLITS,
    eval_fraction: float = 0.1,
    seed: int = 0,
) -> tuple[Examples, Examples]:
    """Training and evaluation examples from files; the training file makes the class names.

    Args:
        train: A file or saved dataset as for :func:`load_file`.
        evaluation: The same for evaluation. By default it is the evaluation split of a saved
            dataset that has one, else a part of the training examples is set aside.
        layout: Their columns and format.
        splits: What a saved dataset's split for evaluation may be called, the first that is there.
        eval_fraction: Fraction of the training examples set aside, in (0, 1).
        seed: Seed of that split.

    Raises:
        ValueError: If the data cannot be used; the message names the place and the fix.
    """
    found = load_training(train, layout)
    if evaluation is None:
        if not split_names(train).intersection(splits):
            return split(found, eval_fraction, seed)
        evaluation = train
    return found, load_file(evaluation, layout, label_names=found.label_names, splits=splits)


def load_training(train: Source, layout: Layout) -> Examples:
    """All training examples of a file or saved dataset; its labels make the class names.

    Raises:
        ValueError: If the data cannot be used; the message names the place and the fix.
    """
    return _training(examples(read(train, layout, ("train",)), layout))


def load_hub(task: Task) -> tuple[Examples, Examples]:
    """Training and evaluation examples of a known task from the Hugging Face hub or its cache.

    Raises:
        ValueError: If the task is not on the hub, or the hub cannot be reached.
    """
    layout = layout_of(task)
    train, evaluation = (examples(from_dataset(*found), layout) for found in known_splits(task))
    return _training(train), evaluation.relabel(train.label_names)


def known_splits(
    task: Task, parts: Sequence[Literal["train", "eval"]] = ("train", "eval")
) -> list[tuple[Any, str]]:
    """Parts of a known task's dataset on the hub, each with its name in words.

    Raises:
        ValueError: If the task is not on the hub, or the hub cannot be reached.
    """
    if task.hub is None:
        raise ValueError(f"task {task.name!r} is not on the hub: give files, --train and --eval.")
    names = {"train": task.hub.train_split, "eval": task.hub.eval_split}
    splits = [names[part] for part in parts]
    return hub.load(task.hub.path, task.hub.config, splits, task.hub.revision)


def split(whole: Examples, eval_fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Set a part aside for evaluation, the same on every machine and every version of Python.

    Each class gives round(its size × ``eval_fraction``) examples, but at least one where it has
    two and never its last. Within a class the order is that of a hash of seed and text, which
    does not depend on the order of the file. Repeated texts are all on one side.

    Raises:
        ValueError: If ``eval_fraction`` is not inside (0, 1) or nothing can be set aside.
    """
    strata = whole.labels if whole.label_names else None
    pairs = whole.pairs or [""] * len(whole)
    keys = [f"{text}\0{pair}" for text, pair in zip(whole.texts, pairs, strict=True)]
    columns = ("texts", "pairs", "labels")
    return set_aside(whole, columns, keys, strata, "row", fraction=eval_fraction, seed=seed)


# ---------------------------------------------------------------------------- checks


def examples(table: Table, layout: Layout) -> Examples:
    """The examples of a table.

    Raises:
        ValueError: If they cannot be used; the message names the place and the fix.
    """
    text_column, pair_column = text_columns(table, layout)
    texts = text_cells(table, text_column, "--text-column")
    pairs = None if pair_column is None else text_cells(table, pair_column, "--pair-column")
    for row, (text, pair) in enumerate(zip(texts, pairs or texts, strict=True)):
        # GLUE's QQP has empty questions, so that one text of a pair may be empty
        if not text.strip() and not pair.strip():
            table.fail(row, f"the text in column {text_column!r} is empty; take the row out.")
    named = " + ".join(filter(None, (text_column, pair_column)))
    source = f"{table.name} ({named} -> {layout.label_column}, {counted(len(texts), 'row')})"
    if layout.problem == "regression":
        cells = table.column(layout.label_column, "--label-column")
        return Examples(texts, pairs, _values(table, cells), (), source)
    labels = _labels(table, table.labels(layout.label_column, "--label-column"))
    names = table.classes(layout.label_column) or _class_names(table, labels)
    index = {name: i for i, name in enumerate(names)}
    return Examples(texts, pairs, [index[label] for label in labels], names, source)


def text_columns(table: Table, layout: Layout) -> tuple[str, str | None]:
    """The columns of the text and of the second one, named or obvious.

    Raises:
        ValueError: None is named, and none is obvious.
    """
    if layout.text_column is None:
        return _obvious(table)
    return layout.text_column, layout.pair_column


def _training(found: Examples) -> Examples:
    if found.label_names and len(set(found.labels)) == 1:
        only = found.label_names[int(found.labels[0])]
        raise ValueError(
            f"{found.source}: every example has the label {only!r}. There is nothing to learn "
            f"from one class; is --label-column the right one?"
        )
    return found


def _obvious(table: Table) -> tuple[str, str | None]:
    found = [
        (text, pair)
        for text, pair in _OBVIOUS
        if text in table.columns and (pair is None or pair in table.columns)
    ]
    # `sentence` beside `question` is the second half of a pair, not a text of its own
    halves = {pair for _, pair in found}
    found = [(text, pair) for text, pair in found if text not in halves]
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"{table.name}: it is not obvious which column holds the text. Its columns are "
        f"{listing(map(short, table.columns))}; choose with --text-column.{table.hint}"
    )


def text_cells(table: Table, column: str, option: str) -> list[str]:
    """The texts of a column; ``option`` is what would choose another.

    Raises:
        ValueError: There is no such column, or a cell holds no text.
    """
    texts = list[str]()
    for row, cell in enumerate(table.column(column, option)):
        if cell is None:
            table.fail(row, f"there is no value in column {column!r}; add it or take the row out.")
        if not isinstance(cell, str):
            table.fail(row, f"column {column!r} holds {short(cell)}, which is not a text.")
        texts.append(cell)
    return texts


def _labels(table: Table, cells: list[object]) -> list[str]:
    labels = list[str]()
    for row, cell in enumerate(cells):
        if isinstance(cell, bool):
            cell = str(cell).lower()
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            cell = ""
        if not isinstance(cell, str | int | float):
            table.fail(row, f"the label is {short(cell)}; a label is a name or a whole number.")
        label = str(cell).strip()
        if not label:
            table.fail(row, "there is no label; add it or take the row out.")
        labels.append(label)
    return labels


def _class_names(table: Table, labels: list[str]) -> tuple[str, ...]:
    distinct = set(labels)
    if all(_parses(int, label) for label in distinct):
        if len(distinct) > MAX_CLASSES:
            raise ValueError(
                f"{table.name}: the labels are {len(distinct):,} different numbers, too many for "
                f"classes (at most {MAX_CLASSES:,}). To predict a number use --regression."
            )
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    if all(_parses(float, label) for label in distinct):
        row = next(row for row, label in enumerate(labels) if not _parses(int, label))
        table.fail(
            row,
            f"the label {labels[row]!r} is a decimal number. To predict a number use "
            f"--regression; for classes write whole numbers or names.",
        )
    return tuple(sorted(distinct))


def _values(table: Table, cells: list[object]) -> list[float]:
    values = list[float]()
    for row, cell in enumerate(cells):
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            table.fail(row, "there is no label; add a number or take the row out.")
        if not isinstance(cell, str | int | float) or not _parses(float, cell):
            table.fail(row, f"the label {short(cell)} is not a number; regression needs numbers.")
        value = float(cell)
        if not math.isfinite(value):
            table.fail(row, f"the label is {value}; regression needs finite numbers.")
        values.append(value)
    return values


def _parses(kind: type[int] | type[float], value: str | int | float) -> bool:
    try:
        kind(value)
    except (ValueError, OverflowError):
        return False
    return True
