"""How files of text are written: encoding, separators, quotes; compressed or not."""

from __future__ import annotations

import codecs
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

Quoting = Literal["auto", "none", "standard"]

TEXT: Final = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json")
"""What a table that is written as text may end in."""

ARROW: Final = (".parquet", ".arrow")
"""What a table that is written as columns may end in."""

KNOWN: Final = TEXT + ARROW
"""What a file of data may end in."""

COMPRESSED: Final = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".xz": "xz"}
"""What may stand behind the name of a file of text, and what pyarrow or Python calls it."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """How files of text are written; the same for training and evaluation.

    Raises:
        ValueError: If a value is not one of those documented.
    """

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
        if self.quoting not in get_args(Quoting):
            raise ValueError(f"--quoting is {self.quoting!r}: it must be auto, none or standard.")
        if self.delimiter is not None and len(self.delimiter.replace("\\t", "\t")) != 1:
            raise ValueError(
                f"--delimiter is {self.delimiter!r}: it must be one character, or \\t for a tab."
            )
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ValueError(
                f"--encoding is {self.encoding!r}, which Python does not know: "
                f"try utf-8, utf-16, cp1252 or latin-1."
            ) from None


def suffix(path: Path) -> str:
    """What a file holds, by the end of its name: ``.csv`` for ``a.csv`` and ``a.CSV.gz``."""
    inner = Path(path.stem).suffix.lower()
    outer = path.suffix.lower()
    return inner if outer in COMPRESSED and inner and inner not in ARROW else outer


def read_text(path: Path, encoding: str) -> str:
    """The text of a file, unpacked if its name says that it is compressed.

    Raises:
        ValueError: It is missing, empty, damaged or written in another encoding; names the line.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    raw = _unpacked(path)
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


def _unpacked(path: Path) -> bytes:
    outer = path.suffix.lower()
    if outer not in COMPRESSED:
        return path.read_bytes()
    try:
        if outer == ".xz":  # which pyarrow does not know
            with lzma.open(path) as file:
                return file.read()
        import pyarrow

        # unlike zstandard's own, it notices that a file is cut off
        with pyarrow.input_stream(str(path), compression=COMPRESSED[outer]) as stream:
            raw: bytes = stream.read()
            return raw
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(f"{path} could not be unpacked as {outer} ({error}).") from error
