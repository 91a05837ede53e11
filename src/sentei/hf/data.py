"""Labelled text from files, saved datasets or the hub.

Every source becomes :class:`Examples` through the same checks. Whatever is wrong with the data is
said before training starts, as a ValueError with the place, the value, the reason and the fix.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from sentei.hf.tables import (
    Layout,
    Table,
    datasets_package,
    from_dataset,
    listing,
    read,
    rows,
    saved_splits,
    short,
)
from sentei.hf.tasks import TextTask

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
_EVAL_SPLITS: Final = ("validation", "validation_matched", "dev", "eval", "test")


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

    def relabel(self, label_names: Sequence[str]) -> Self:
        """The same examples under another order of the class names, such as a saved model's.

        A model that only has the placeholder names LABEL_0, LABEL_1, ... takes the labels 0, 1, ...

        Raises:
            ValueError: If a label that occurs has no place in ``label_names``.
        """
        names = tuple(label_names)
        index = {name: i for i, name in enumerate(names)}
        if names == tuple(f"LABEL_{i}" for i in range(len(names))):
            index |= {str(i): i for i in range(len(names))}
        counts = Counter(self.label_names[int(label)] for label in self.labels)
        if unknown := {name: count for name, count in counts.items() if name not in index}:
            found = listing([f"{name!r} ({rows(count)})" for name, count in unknown.items()])
            raise ValueError(
                f"{self.source}: label {found} is not among the labels that the model is trained "
                f"for: {listing(map(repr, names))}. Correct these rows or take them out."
            )
        order = [index.get(name, -1) for name in self.label_names]
        labels = [order[int(label)] for label in self.labels]
        return replace(self, labels=labels, label_names=names)


# ---------------------------------------------------------------------------- loading


def load_file(path: Path, layout: Layout, *, label_names: Sequence[str] | None = None) -> Examples:
    """The examples of one file, or of a folder written by ``datasets.save_to_disk``.

    Args:
        path: .csv, .tsv, .txt (tab separated), .jsonl, .ndjson, .json (a list of objects), or a
            folder; of a folder with several splits the one for evaluation is read.
        layout: Its columns and format.
        label_names: Class names in the order a model knows them; by default they are taken from
            the labels found, in numerical order if all are whole numbers, else alphabetical.

    Raises:
        ValueError: If the data cannot be used; the message names the place and the fix.
    """
    examples = _examples(read(Path(path), layout, _EVAL_SPLITS), layout)
    if label_names is None or layout.problem == "regression":
        return examples
    return examples.relabel(label_names)


def load_files(
    train: Path,
    evaluation: Path | None,
    layout: Layout,
    *,
    eval_fraction: float = 0.1,
    seed: int = 0,
) -> tuple[Examples, Examples]:
    """Training and evaluation examples from files; the training file makes the class names.

    Args:
        train: A file or saved dataset as for :func:`load_file`.
        evaluation: The same for evaluation. By default it is the evaluation split of a saved
            dataset that has one, else a part of the training examples is set aside.
        layout: Their columns and format.
        eval_fraction: Fraction of the training examples set aside, in (0, 1).
        seed: Seed of that split.

    Raises:
        ValueError: If the data cannot be used; the message names the place and the fix.
    """
    train = Path(train)
    examples = load_training(train, layout)
    if evaluation is None:
        if not (train.is_dir() and saved_splits(train).intersection(_EVAL_SPLITS)):
            return split(examples, eval_fraction, seed)
        evaluation = train
    return examples, load_file(evaluation, layout, label_names=examples.label_names)


def load_training(train: Path, layout: Layout) -> Examples:
    """All training examples of a file or saved dataset; its labels make the class names.

    Raises:
        ValueError: If the data cannot be used; the message names the place and the fix.
    """
    return _training(_examples(read(Path(train), layout, ("train",)), layout))


def load_hub(task: TextTask) -> tuple[Examples, Examples]:
    """Training and evaluation examples of a known task from the Hugging Face hub or its cache.

    Raises:
        ValueError: If the task is not on the hub, the hub cannot be reached, or ``datasets`` is
            not installed.
    """
    if task.hub is None:
        raise ValueError(f"task {task.name!r} is not on the hub: give files, --train and --eval.")
    hub, layout, datasets = task.hub, Layout.of(task), datasets_package()
    name = f"{hub.path} ({hub.config})"
    try:
        loaded = datasets.load_dataset(hub.path, hub.config)
    except OSError as error:  # every failure of huggingface_hub and of the network is one
        reached = not isinstance(error, ConnectionError)
        reason = "could not be loaded" if reached else "the Hugging Face hub cannot be reached"
        detail = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"task {task.name!r} needs the dataset {name} and {reason} "
            f"({type(error).__name__}: {detail}). With the same data in files or in a folder made "
            f"by save_to_disk: --task {task.name} --train FILE --eval FILE."
        ) from error
    train, evaluation = (
        _examples(from_dataset(loaded[part], f"{name}, {part} split", layout), layout)
        for part in (hub.train_split, hub.eval_split)
    )
    _training(train)
    return train, evaluation.relabel(train.label_names) if train.label_names else evaluation


def split(examples: Examples, eval_fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Set a part aside for evaluation, the same on every machine and every version of Python.

    Each class gives round(its size × ``eval_fraction``) examples, but at least one where it has
    two and never its last. Within a class the order is that of a hash of seed and text, which
    does not depend on the order of the file and keeps repeated texts together.

    Raises:
        ValueError: If ``eval_fraction`` is not inside (0, 1) or nothing can be set aside.
    """
    if not 0 < eval_fraction < 1:
        raise ValueError(
            f"eval_fraction is {eval_fraction}: it must lie between 0 and 1, without the ends."
        )
    strata = defaultdict[Hashable, list[int]](list)
    for i, label in enumerate(examples.labels):
        strata[label if examples.label_names else None].append(i)

    def rank(i: int) -> tuple[bytes, int]:
        text = f"{seed}\0{examples.texts[i]}\0{examples.pairs[i] if examples.pairs else ''}"
        return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).digest(), i

    aside = set[int]()
    for members in strata.values():
        count = min(max(1, round(len(members) * eval_fraction)), len(members) - 1)
        aside.update(sorted(members, key=rank)[:count])
    if not aside:
        raise ValueError(
            f"{examples.source}: too few examples to set some aside for evaluation; "
            f"give an evaluation file with --eval."
        )

    def part(chosen: list[int], what: str) -> Examples:
        return Examples(
            texts=[examples.texts[i] for i in chosen],
            pairs=[examples.pairs[i] for i in chosen] if examples.pairs is not None else None,
            labels=[examples.labels[i] for i in chosen],
            label_names=examples.label_names,
            source=f"{examples.source}: {what}, {rows(len(chosen))}",
        )

    how = f"{'stratified ' if examples.label_names else ''}split, seed {seed}"
    rest = [i for i in range(len(examples)) if i not in aside]
    return (
        part(rest, f"{1 - eval_fraction:.0%} of a {how}"),
        part(sorted(aside), f"{eval_fraction:.0%} of a {how}"),
    )


# ---------------------------------------------------------------------------- checks


def _examples(table: Table, layout: Layout) -> Examples:
    text_column, pair_column = layout.text_column, layout.pair_column
    if text_column is None:
        text_column, pair_column = _obvious(table)
    texts = _texts(table, text_column, "--text-column")
    pairs = None if pair_column is None else _texts(table, pair_column, "--pair-column")
    for row, (text, pair) in enumerate(zip(texts, pairs or texts, strict=True)):
        # GLUE's QQP has empty questions, so that one text of a pair may be empty
        if not text.strip() and not pair.strip():
            table.fail(row, f"the text in column {text_column!r} is empty; take the row out.")
    cells = table.column(layout.label_column, "--label-column")
    named = " + ".join(filter(None, (text_column, pair_column)))
    source = f"{table.name} ({named} -> {layout.label_column}, {rows(len(texts))})"
    if layout.problem == "regression":
        return Examples(texts, pairs, _values(table, cells), (), source)
    labels = _labels(table, cells)
    names = table.names or _class_names(table, labels)
    index = {name: i for i, name in enumerate(names)}
    return Examples(texts, pairs, [index[label] for label in labels], names, source)


def _training(examples: Examples) -> Examples:
    if examples.label_names and len(set(examples.labels)) == 1:
        only = examples.label_names[int(examples.labels[0])]
        raise ValueError(
            f"{examples.source}: every example has the label {only!r}. There is nothing to learn "
            f"from one class; is --label-column the right one?"
        )
    return examples


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


def _texts(table: Table, column: str, option: str) -> list[str]:
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
