"""Tables of cells out of files and saved datasets, read strictly and with their places kept."""

from __future__ import annotations

import codecs
import csv
import importlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, NoReturn, Self, get_args

from sentei.tasks.catalogue import Problem, Task, did_you_mean

Quoting = Literal["auto", "none", "standard"]

SUFFIXES: Final = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json")
"""What a file of a table may end in."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How labelled text is laid out in files; the same for training and evaluation.

    Columns are header names, keys of JSON objects, or "1", "2", ... where there is no header.
    Without a ``text_column`` the columns are searched for the usual names of a text or a pair.

    Raises:
        ValueError: If a value is not one of those documented.
    """

    text_column: str | None = None
    pair_column: str | None = None
    """The second text, for tasks over pairs of texts."""
    label_column: str = "label"
    problem: Problem = "classification"
    encoding: str = "utf-8"
    """Any codec known to Python; a byte-order mark in UTF-8 does no harm."""
    quoting: Quoting = "auto"
    """``standard``: double quotes, doubled inside, may enclose separators and line breaks;
    ``none``: quotes are text like any other; ``auto``: standard for .csv, none for .tsv and .txt,
    as GLUE's files are."""
    delimiter: str | None = None
    """One character; by default a comma in .csv, a tab in .tsv and .txt."""
    header: bool = True
    """Whether the first line names the columns (.csv, .tsv and .txt)."""

    def __post_init__(self) -> None:
        if self.problem not in get_args(Problem):
            raise ValueError(
                f"problem is {self.problem!r}: it must be classification or regression."
            )
        if self.quoting not in get_args(Quoting):
            raise ValueError(f"--quoting is {self.quoting!r}: it must be auto, none or standard.")
        if self.delimiter is not None and len(self.delimiter.replace("\\t", "\t")) != 1:
            raise ValueError(
                f"--delimiter is {self.delimiter!r}: it must be one character, or \\t for a tab."
            )
        if self.pair_column is not None and self.text_column is None:
            raise ValueError("--pair-column needs --text-column beside it.")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ValueError(
                f"--encoding is {self.encoding!r}, which Python does not know: "
                f"try utf-8, utf-16, cp1252 or latin-1."
            ) from None

    @classmethod
    def of(cls, task: Task) -> Self:
        """The columns and the problem of a known task of text."""
        return cls(
            text_column=task.columns.get("text_column"),
            pair_column=task.columns.get("pair_column"),
            label_column=task.columns.get("label_column", "label"),
            problem=task.problem,
        )


@dataclass(frozen=True)
class Table:
    """Columns of cells as they were read; None where a row has no such cell.

    ``names`` are class names declared by the source: the label cells are then already among them.
    """

    name: str
    columns: dict[str, list[object]]
    numbers: Sequence[int]
    unit: Literal["line", "item", "row"]
    hint: str = ""
    names: tuple[str, ...] | None = None

    def fail(self, row: int, reason: str) -> NoReturn:
        """Raise ValueError with the place of ``row``."""
        raise ValueError(f"{self.name}, {self.unit} {self.numbers[row]}: {reason}")

    def column(self, name: str, option: str) -> list[object]:
        """The cells of a column; ``option`` is what would choose another.

        Raises:
            ValueError: There is no such column.
        """
        if name not in self.columns:
            raise ValueError(no_column(self.name, name, self.columns, option) + self.hint)
        return self.columns[name]


def no_column(place: str, name: str, columns: Iterable[str], option: str) -> str:
    """What to say of a column that ``place`` lacks; ``option`` is what would choose another."""
    columns = list(columns)
    return (
        f"{place} has no column {name!r}{did_you_mean(name, columns)} "
        f"Its columns are {listing(map(short, columns))}; choose with {option}."
    )


def read(path: Path, layout: Layout, splits: Sequence[str]) -> Table:
    """The table of a file, or of the first of ``splits`` that a saved dataset has.

    Raises:
        ValueError: It is missing, empty, of an unknown kind, or damaged; names the line.
    """
    if path.is_dir():
        return _read_saved(path, layout, splits)
    suffix = path.suffix.lower()
    if path.exists() and suffix not in SUFFIXES:
        raise ValueError(
            f"{path} ends in {path.suffix!r}: the known kinds of file are {', '.join(SUFFIXES)} "
            f"and folders made by save_to_disk."
        )
    text = read_text(path, layout.encoding)
    if suffix == ".json":
        return _read_json(path, text)
    if suffix in (".jsonl", ".ndjson"):
        return _read_json_lines(path, text)
    return _read_separated(path, text, layout)


def read_text(path: Path, encoding: str) -> str:
    """The text of a file.

    Raises:
        ValueError: It is missing, empty, or written in another encoding; names the line.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    raw = path.read_bytes()
    codec = codecs.lookup(encoding).name
    try:
        text = raw.decode("utf-8-sig" if codec == "utf-8" else codec)
    except UnicodeDecodeError as error:
        # the byte-order mark that utf-8-sig takes off is not counted in error.start
        data = error.object
        line = data.count(b"\n", 0, error.start) + 1
        wide = raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        fix = "utf-16" if wide else "cp1252 (Windows) or --encoding latin-1"
        raise ValueError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not valid {encoding}. "
            f"If the file was written in another encoding, say which: --encoding {fix}."
        ) from None
    if not text.strip():
        raise ValueError(f"{path} is empty.")
    return text


def _read_separated(path: Path, text: str, layout: Layout) -> Table:
    comma = path.suffix.lower() == ".csv"
    delimiter = (layout.delimiter or ("," if comma else "\t")).replace("\\t", "\t")
    quoted = layout.quoting == "standard" or (layout.quoting == "auto" and comma)
    records = list(_quoted_rows(path, text, delimiter) if quoted else _plain_rows(text, delimiter))
    numbers = [number for number, _ in records]
    rows = [row for _, row in records]
    hint = " A file without a header needs --no-header; its columns are then 1, 2, ..."
    if layout.header:
        header = rows.pop(0)
        numbers.pop(0)
        if not rows:
            raise ValueError(f"{path} has only one line, taken as its header, and no examples.")
        for name, count in Counter(header).items():
            if count > 1 and name in (layout.text_column, layout.pair_column, layout.label_column):
                raise ValueError(f"{path}: the header names the column {name!r} {count} times.")
        for number, row in zip(numbers, rows, strict=True):
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {number}: it has {counted(len(row), 'column')}, the header has "
                    f"{len(header)} ({listing(map(short, header))}). A separator or a quote "
                    f"inside a text? Columns are split at {delimiter!r}, quoting is "
                    f"{'standard' if quoted else 'none'}: see --delimiter and --quoting."
                )
        columns = dict(zip(header, _transposed(rows), strict=True))
    else:
        # Nothing declares a width here, and published files differ from row to row (STS-B has
        # 7 or 9 columns): a row is refused only where a column that is asked for is missing.
        columns = {str(i): column for i, column in enumerate(_transposed(rows), start=1)}
        hint = " The file was read without a header, so that its columns are numbered."
    return Table(str(path), columns, numbers, "line", hint)


def _transposed(rows: list[list[str]]) -> list[list[object]]:
    return [list(column) for column in zip_longest(*rows)]


def _plain_rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    # not splitlines(), which also splits at U+2028, U+0085 and others inside a text
    for number, line in enumerate(text.split("\n"), start=1):
        if line := line.removesuffix("\r"):
            yield number, line.split(delimiter)


def _quoted_rows(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    first = 1
    limit = csv.field_size_limit(2**31 - 1)  # the default refuses texts over 128 KiB
    try:
        for row in reader:
            if row:
                yield first, row
            first = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {first}: not a valid quoted row ({error}). A quote inside a quoted text "
            f"must be doubled; if quotes are plain text in this file, use --quoting none."
        ) from None
    finally:
        csv.field_size_limit(limit)


def _read_json_lines(path: Path, text: str) -> Table:
    records, numbers = list[object](), list[int]()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not valid JSON ({error.msg} at column {error.colno}). "
                f"Each line must be one object."
            ) from None
        numbers.append(number)
    return _from_objects(path, records, numbers, "line")


def _read_json(path: Path, text: str) -> Table:
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        fix = (
            "with one object a line, name it .jsonl" if error.msg == "Extra data" else "correct it"
        )
        raise ValueError(
            f"{path}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno}); "
            f"{fix}."
        ) from None
    if not isinstance(records, list) or not records:
        raise ValueError(f"{path} must hold a list of objects with at least one in it.")
    return _from_objects(path, records, range(1, len(records) + 1), "item")


def _from_objects(
    path: Path, records: list[object], numbers: Sequence[int], unit: Literal["line", "item"]
) -> Table:
    rows = list[dict[str, object]]()
    for number, record in zip(numbers, records, strict=True):
        if not isinstance(record, dict):
            raise ValueError(
                f"{path}, {unit} {number}: {short(record)} is not an object; "
                f'an example is written {{"text": "...", "label": "..."}}.'
            )
        rows.append(record)
    keys = dict.fromkeys(key for row in rows for key in row)
    return Table(str(path), {key: [row.get(key) for row in rows] for key in keys}, numbers, unit)


def datasets_package() -> ModuleType:
    """The optional package ``datasets``.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise ValueError(
            "this source of data needs the package datasets: pip install 'sentei[data]'. "
            "Files (--train, --eval) need nothing."
        ) from error


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by ``datasets.save_to_disk``."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def saved_splits(folder: Path) -> set[str]:
    """Names of the splits of a saved DatasetDict; none for a saved Dataset."""
    described = folder / "dataset_dict.json"
    return set(json.loads(described.read_bytes())["splits"]) if described.is_file() else set()


def _read_saved(folder: Path, layout: Layout, splits: Sequence[str]) -> Table:
    return from_dataset(*load_saved(folder, splits), layout)


def load_saved(folder: Path, splits: Sequence[str]) -> tuple[Any, str]:
    """A dataset that was saved, and its name: of several splits the first of ``splits`` it has.

    Raises:
        ValueError: It was not written by ``save_to_disk``, or has none of the splits.
    """
    try:
        found = datasets_package().load_from_disk(str(folder))
    except FileNotFoundError:
        raise ValueError(
            f"{folder} is a folder, but none made by save_to_disk of the datasets package. "
            f"Give a file in it, or such a folder."
        ) from None
    if not saved_splits(folder):
        return found, str(folder)
    for name in splits:
        if name in found:
            return found[name], f"{folder}, {name} split"
    raise ValueError(
        f"{folder} has the splits {listing(map(repr, found))}, but none of "
        f"{listing(map(repr, splits))}. Give the folder of one split."
    )


def from_dataset(dataset: Any, name: str, layout: Layout) -> Table:
    """The table of a ``datasets.Dataset``, labels and lists of labels by the names it declares."""
    columns = {column: list(dataset[column]) for column in dataset.column_names}
    feature = dataset.features.get(layout.label_column)
    listed = getattr(feature, "feature", None)
    labels = feature if listed is None else listed
    names: tuple[str, ...] | None = None
    if layout.problem == "classification" and isinstance(labels, datasets_package().ClassLabel):
        names = tuple(labels.names)
        cells = columns[layout.label_column]
        columns[layout.label_column] = [_named(cell, names) for cell in cells]
    return Table(name, columns, range(1, len(dataset) + 1), "row", names=names)


def _named(label: Any, names: tuple[str, ...]) -> Any:
    if isinstance(label, list):
        return [_named(one, names) for one in label]
    # -1 stands for a label that is withheld, as in GLUE's test splits
    return None if label is None or label < 0 else names[label]


def listing(items: Iterable[str], most: int = 10) -> str:
    """The first of many, and how many more there are."""
    shown = list(items)
    more = f", ... ({len(shown) - most} more)" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def short(value: object, width: int = 40) -> str:
    """A value as Python writes it, cut to ``width``."""
    shown = repr(value)
    return shown if len(shown) <= width else f"{shown[: width - 4]}...{shown[0]}"


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def rows(number: int) -> str:
    """A number of rows."""
    return counted(number, "row")
