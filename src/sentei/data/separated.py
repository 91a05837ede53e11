"""Rows out of columns that a separator divides: .csv, .tsv and .txt, each with its line."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from sentei.data import formats
from sentei.data.formats import Format
from sentei.data.table import Gathered, Sheet
from sentei.messages import counted, listing, short

_HEADERLESS = " The file was read without a header, so that its columns are numbered."
_HEADER = " A file without a header needs --no-header; its columns are then 1, 2, ..."

_SAID: Final = re.compile(r'"?sep=(?P<delimiter>[^"\r\n])"?[ ,;\t]*(?:\r\n|[\r\n])', re.IGNORECASE)
"""A first line by which spreadsheets say what divides the columns."""


def read(name: str, text: str, form: Format, *, comma: bool) -> Sheet:
    """The cells of a text, which stay texts: ``NA`` and ``007`` are what they were.

    Args:
        name: What to call the file.
        text: What it holds; empty rows at its end are passed over.
        form: How it is written.
        comma: Whether columns are divided by commas where ``form`` does not say, and quoted.

    Raises:
        ValueError: A row is broken or of another width than the header; names the line.
    """
    said = _SAID.match(text)
    usual = said["delimiter"] if said else "," if comma else "\t"
    delimiter = (form.delimiter or usual).replace("\\t", "\t")
    quoted = form.quoting == "standard" or (form.quoting == "auto" and comma)
    content, before = (text[said.end() :], 1) if said else (text, 0)
    divide = _quoted if quoted else _plain
    numbers, rows = list[int](), list[list[str]]()
    for number, row in divide(name, content, delimiter, before):
        numbers.append(number)
        rows.append(row)
    while rows and not any(cell.strip() for cell in rows[-1]):
        del rows[-1], numbers[-1]
    if not rows:
        raise ValueError(f"{name} is empty.")
    if not form.header:
        # Nothing declares a width here, and published files differ from row to row (STS-B has
        # 7 or 9 columns): a row is refused only where a column that is asked for is missing.
        width = max(map(len, rows))
        columns = Gathered(
            map(str, range(1, width + 1)),
            lambda _, place: [row[place] if place < len(row) else None for row in rows],
        )
        return Sheet(name, columns, numbers, "line", hint=_HEADERLESS)
    header = rows.pop(0)
    if not rows:
        raise ValueError(f"{name} has only one line, taken as its header, and no examples.")
    del numbers[0]
    for number, row in zip(numbers, rows, strict=True):
        if len(row) != len(header):
            raise ValueError(
                f"{name}, line {number}: it has {counted(len(row), 'column')}, the header has "
                f"{len(header)} ({listing(map(short, header))}). A separator or a quote "
                f"inside a text, or a comment? Columns are split at {delimiter!r}, quoting is "
                f"{'standard' if quoted else 'none'}: see --delimiter and --quoting."
            )
        if row == header:
            raise ValueError(
                f"{name}, line {number}: it is the header once more, as where files were put "
                f"together; take it out."
            )
    columns = Gathered(header, lambda _, place: [row[place] for row in rows])
    repeated = {column: count for column, count in Counter(header).items() if count > 1}
    hint = _HEADER + _undivided(header)
    return Sheet(name, columns, numbers, "line", hint=hint, repeated=repeated)


def _undivided(header: list[str]) -> str:
    """What to say of a header that another character seems to divide."""
    others = [one for one in (";", "\t", "|", ",") if len(header) == 1 and one in header[0]]
    return f" Are they divided by {others[0]!r}? See --delimiter." if others else ""


def _plain(name: str, text: str, delimiter: str, before: int) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(formats.lines(text), start=before + 1):
        if line:
            yield number, line.split(delimiter)


def _quoted(name: str, text: str, delimiter: str, before: int) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    first = before + 1
    limit = csv.field_size_limit(2**31 - 1)  # the default refuses texts over 128 KiB
    try:
        for row in reader:
            if row:
                yield first, row
            first = before + reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{name}, line {first}: not a valid quoted row ({error}). A quote inside a quoted text "
            f"must be doubled; if quotes are plain text in this file, use --quoting none."
        ) from None
    finally:
        csv.field_size_limit(limit)
