"""What the name of a source stands for: files, folders, saved datasets, the hub; one split of it.

Text is read by our own strict readers, everything else as a ``datasets.Dataset``: see
``docs/decisions/0014-what-reads-the-data.md``.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import datasets
import pyarrow
import pyarrow.parquet
from datasets.data_files import FILES_TO_IGNORE, SPLIT_KEYWORDS

from sentei.data import hub, objects, separated
from sentei.data.formats import (
    ARROW,
    COMPRESSED,
    KNOWN,
    TEXT,
    Format,
    check_plain,
    read_text,
    suffix,
)
from sentei.data.table import Gathered, Sheet, Table
from sentei.messages import counted, listing, short
from sentei.untrusted import reading

Source = str | Path
"""A file, a pattern of files such as ``data/*.csv``, a folder, or ``user/name`` of the hub."""

_KINDS: Final = (
    f"the known kinds of file are {', '.join(KNOWN)}, those of text also compressed "
    f"({', '.join(COMPRESSED)}), and folders made by save_to_disk"
)


def read(source: Source | Sequence[Source], form: Format, splits: Sequence[str]) -> Table:
    """The table of a source, or of several one after another.

    Args:
        source: One, or several.
        form: How files of text are written.
        splits: Of a source that is divided the first of these that it has is read.

    Raises:
        ValueError: It is missing, empty, of an unknown kind, or damaged; names file and row.
    """
    sheets, names = list[Sheet](), list[str]()
    for one in [source] if isinstance(source, str | Path) else source:
        content, name = _choose(one, splits)
        names.append(name)
        if isinstance(content, datasets.Dataset):
            sheets.append(_sheet(content, name))
        else:
            sheets += [_read_file(file, form) for file in content]
    return Table(" + ".join(names), tuple(sheets))


def load(source: Source, splits: Sequence[str]) -> tuple[Any, str]:
    """A ``datasets.Dataset`` and its name, of a source that is not text.

    Args:
        source: Parquet or Arrow files, a saved dataset, or one of the hub.
        splits: Of a source that is divided the first of these that it has is read.

    Raises:
        ValueError: It is missing, damaged, or text.
    """
    content, name = _choose(source, splits)
    if isinstance(content, datasets.Dataset):
        return content, name
    for file in content:
        if suffix(file) not in ARROW:
            raise ValueError(f"{file} holds text; {' and '.join(ARROW)} are read here.")
    return datasets.concatenate_datasets([_columns(file) for file in content]), name


def split_names(source: Source | Sequence[Source]) -> set[str]:
    """Names of the splits that a source is divided into; none where it is not.

    Raises:
        ValueError: It is missing, or a folder that is not clear.
    """
    if not isinstance(source, str | Path):
        return set[str]().union(*map(split_names, source))
    content = _open(source)
    return set(content) if isinstance(content, Mapping) else set()


def from_dataset(dataset: Any, name: str) -> Table:
    """The table of a ``datasets.Dataset``."""
    return Table(name, (_sheet(dataset, name),))


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by ``datasets.save_to_disk``."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def _choose(source: Source, splits: Sequence[str]) -> tuple[Any, str]:
    """A dataset or a list of files, and its name; of several splits the first of ``splits``."""
    content, name = _open(source), str(source)
    if not isinstance(content, Mapping):
        several = len(content) > 1 and not isinstance(content, datasets.Dataset)
        return content, f"{name}, {counted(len(content), 'file')}" if several else name
    for split in splits:
        if split in content:
            return content[split], f"{name}, {split} split"
    raise ValueError(
        f"{source} has the splits {listing(map(repr, content))}, but none of "
        f"{listing(map(repr, splits))}. Name the file or folder of one split."
    )


def _open(source: Source) -> Any:
    """A dataset or a list of files, or a mapping of such by split."""
    path = Path(source)
    if path.is_dir():
        if not is_saved(path):
            return _folder(path)
        with reading(path, "it is damaged, or was not made by save_to_disk"):
            return datasets.load_from_disk(str(path))
    if path.exists():
        return [path]
    if glob.has_magic(str(source)):
        if files := sorted(Path(file) for file in glob.glob(str(source), recursive=True)):
            return files
        raise ValueError(f"{source}: no file is called like that.")
    if named := hub.parse(path):
        try:
            return hub.load_all(*named)
        except ValueError as error:
            raise ValueError(f"{source} is no file or folder here; {error}") from error
    raise ValueError(f"{path} does not exist.")


def _folder(folder: Path) -> list[Path] | dict[str, list[Path]]:
    """The files of a folder; by split, if they or their folders are called like splits."""
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if suffix(file) in KNOWN
        and file.name not in FILES_TO_IGNORE
        and not any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)
    ]
    if not files:
        raise ValueError(
            f"{folder} is a folder without data and none made by save_to_disk: {_KINDS}."
        )
    if len(kinds := sorted({suffix(file) for file in files})) > 1:
        raise ValueError(
            f"{folder} holds files of several kinds ({', '.join(kinds)}): name those to read, "
            f"such as '{folder / '*'}{kinds[0]}'."
        )
    splits = dict[str, list[Path]]()
    for file in files:
        splits.setdefault(_split(file.relative_to(folder)), []).append(file)
    if list(splits) == [""]:
        return files
    if unclear := splits.get(""):
        raise ValueError(
            f"{folder}: of the files {listing(str(file.relative_to(folder)) for file in unclear)} "
            f"the name says no split, of others it does; name the files to read."
        )
    return splits


def _split(path: Path) -> str:
    """The split that a path inside a folder names; empty where it names none."""
    for word in re.split(r"[-._ /0-9]+", path.as_posix().lower()):
        for split, words in SPLIT_KEYWORDS.items():
            if word in words:
                return str(split)
    return ""


def _read_file(path: Path, form: Format) -> Sheet:
    kind = suffix(path)
    if kind in ARROW:
        return _sheet(_columns(path), str(path))
    if kind not in TEXT:
        raise ValueError(f"{path} ends in {path.suffix!r}: {_KINDS}.")
    text = read_text(path, form.encoding)
    if kind == ".json":
        return objects.read_list(str(path), text)
    if kind in (".jsonl", ".ndjson"):
        return objects.read_lines(str(path), text)
    return separated.read(str(path), text, form, comma=kind == ".csv")


def _columns(path: Path) -> Any:
    """A Parquet or Arrow file as a ``datasets.Dataset``, without a copy in the library's cache."""
    check_plain(path)
    with reading(path, f"it is damaged, or no {suffix(path)} file"):
        if suffix(path) == ".parquet":
            _check_names(path, pyarrow.parquet.read_schema(path).names)
            # no partitioning: `label=1` in a folder's name is no column
            return datasets.Dataset(pyarrow.parquet.read_table(path, partitioning=None))
        mapped = pyarrow.memory_map(str(path))
        try:
            columns = pyarrow.ipc.open_stream(mapped).read_all()
        except pyarrow.ArrowInvalid:  # two formats share the name
            columns = pyarrow.ipc.open_file(mapped).read_all()
        _check_names(path, columns.column_names)
        return datasets.Dataset(columns)


def _check_names(path: Path, names: Sequence[str]) -> None:
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(
            f"{path} has more than one column {short(repeated[0])}: give each its own name."
        )


def _sheet(dataset: Any, name: str) -> Sheet:
    if not len(dataset):
        raise ValueError(f"{name} is empty.")
    classes = dict[str, tuple[str, ...]]()
    for column, feature in dataset.features.items():
        while isinstance(feature, datasets.List | datasets.LargeList):
            feature = feature.feature
        if isinstance(feature, datasets.ClassLabel):
            classes[column] = tuple(feature.names)
    columns = Gathered(dataset.column_names, lambda column, _: _cells(dataset, column, name))
    return Sheet(name, columns, range(1, len(dataset) + 1), "row", classes=classes)


def _cells(dataset: Any, column: str, name: str) -> list[Any]:
    with reading(name, f"its column {short(column)} is damaged"):
        cells: list[Any] = dataset[column][:]
        return cells
