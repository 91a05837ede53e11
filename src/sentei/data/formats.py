"""How files of text are written: encoding, separators, quotes; compressed or not."""

from __future__ import annotations

import codecs
import lzma
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast, get_args

from sentei.messages import short
from sentei.untrusted import reading

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
    """Any encoding of text known to Python; a byte-order mark does no harm."""
    quoting: Quoting = "auto"
    """``standard``: double quotes, doubled inside, may enclose separators and line breaks;
    ``none``: quotes are text like any other; ``auto``: standard for .csv, none for .tsv and .txt,
    as GLUE's files are."""
    delimiter: str | None = None
    """One character; by default that of a first line ``sep=;``, else a comma in .csv, a tab in
    .tsv and .txt."""
    header: bool = True
    """Whether the first line names the columns (.csv, .tsv and .txt)."""

    def __post_init__(self) -> None:
        if self.quoting not in get_args(Quoting):
            raise ValueError(f"--quoting is {self.quoting!r}: it must be auto, none or standard.")
        if self.delimiter is not None:
            one = self.delimiter.replace("\\t", "\t")
            if len(one) != 1 or one in '"\r\n':
                raise ValueError(
                    f"--delimiter is {short(self.delimiter)}: it must be one character, no quote "
                    f"and no line end, or \\t for a tab."
                )
        check_encoding(self.encoding)


def check_encoding(encoding: str) -> None:
    """Refuse what does not make text of bytes.

    Raises:
        ValueError: Python does not know it, or it makes something else.
    """
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        raise ValueError(
            f"--encoding is {short(encoding)}, which Python does not know as an encoding of text: "
            f"try utf-8, utf-16, cp1252 or latin-1."
        ) from None


def suffix(path: Path) -> str:
    """What a file holds, by the end of its name: ``.csv`` for ``a.csv`` and ``a.CSV.gz``."""
    inner = Path(path.stem).suffix.lower()
    outer = path.suffix.lower()
    return inner if outer in COMPRESSED and inner and inner not in ARROW else outer


def lines(text: str) -> list[str]:
    """The lines of a text, whichever way they end.

    Not str.splitlines, which also splits at U+2028, U+0085 and others inside a text.
    """
    return re.split("\r\n|[\r\n]", text)


HALF: Final = re.compile("[\ud800-\udfff]")
"""Half of a character beyond U+FFFF, as UTF-16 has it: no text holds one alone."""


def check_plain(path: Path) -> None:
    """Refuse what is no file: a pipe would be waited for, and a device has no end.

    Raises:
        ValueError: It is a pipe, a device or a folder, or is missing.
    """
    if path.is_file():
        return
    if not path.exists():
        raise ValueError(f"{path} does not exist.")
    raise ValueError(f"{path} is a pipe, a device or a folder: write the data to a file.")


def read_text(path: Path, encoding: str) -> str:
    """The text of a file, unpacked if its name says that it is compressed.

    Raises:
        ValueError: It is missing, empty, damaged or written in another encoding; names the line.
    """
    check_encoding(encoding)
    with reading(path, "name a file that can be read"):
        check_plain(path)
        raw = _unpacked(path)
    try:
        text = raw.decode(encoding).removeprefix("\ufeff")
        if encoding.lower() not in ("utf-8", "utf8") and (half := HALF.search(text)):
            raise ValueError(f"{half[0]!r} is half of a character")
    except UnicodeDecodeError as error:
        data = error.object
        line = len(re.findall(b"\r\n|[\r\n]", data[: error.start])) + 1
        wide = raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        fix = "utf-16" if wide else "cp1252 (Windows) or --encoding latin-1"
        raise ValueError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not valid {encoding}. "
            f"If the file was written in another encoding, say which: --encoding {fix}."
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid {encoding} ({error}): see --encoding.") from None
    if not text.strip():
        raise ValueError(f"{path} is empty.")
    return text


_PIECE: Final = 1 << 24
"""Bytes that are unpacked at once."""

_MOST_TIMES: Final = 200
"""What a file of text unpacks to, over its size: ten is usual, and a bomb has a thousand."""


def _unpacked(path: Path) -> bytes:
    outer = path.suffix.lower()
    if outer not in COMPRESSED:
        return path.read_bytes()
    try:
        if outer == ".xz":  # which pyarrow does not know
            with lzma.open(path) as file:
                return _all(file, path)
        import pyarrow

        # unlike zstandard's own, it notices that a file is cut off
        with pyarrow.input_stream(str(path), compression=COMPRESSED[outer]) as stream:
            return _all(stream, path)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(f"{path} could not be unpacked as {outer} ({error}).") from error


def _all(stream: object, path: Path) -> bytes:
    most = max(4 * _PIECE, _MOST_TIMES * path.stat().st_size)
    pieces, size = list[bytes](), 0
    while piece := cast(BinaryIO, stream).read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise ValueError(
                f"{path} unpacks to more than {_MOST_TIMES} times its size, as no text does: "
                f"unpack it yourself if it is one."
            )
    return b"".join(pieces)
