"""Rows out of columns that a separator divides: .csv, .tsv and .txt, each with its line."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest

from sentei.data.formats import Format
from sentei.data.table import Sheet
from sentei.messages import counted, listing, short

_HEADERLESS = " The file was read without a header, so that its columns are numbered."
_HEADER = " A file without a header needs --no-header; its columns are then 1, 2, ..."


def read(name: str, text: str, form: Format, *, comma: bool) -> Sheet:
    """The cells of a text, which stay texts: ``NA`` and ``007`` are what they were.

    Args:
        name: What to call the file.
        text: What it holds.
        form: How it is written.
        comma: Whether columns are divided by commas where ``form`` does not say, and quoted.

    Raises:
        ValueError: A row is broken or of another width than the header; names the line.
    """
    delimiter = (form.delimiter or ("," if comma else "\t")).replace("\\t", "\t")
    quoted = form.quoting == "standard" or (form.quoting == "auto" and comma)
    lines = _quoted(name, text, delimiter) if quoted else _plain(text, delimiter)
    numbers, rows = list[int](), list[list[str]]()
    for number, row in lines:
        numbers.append(number)
        rows.append(row)
    if not form.header:
        # Nothing declares a width here, and published files differ from row to row (STS-B has
        # 7 or 9 columns): a row is refused only where a column that is asked for is missing.
        columns = {str(i): column for i, column in enumerate(zip_longest(*rows), start=1)}
        return Sheet(name, columns, numbers, "line", hint=_HEADERLESS)
    header, *rows = rows
    if not rows:
        raise ValueError(f"{name} has only one line, taken as its header, and no examples.")
    del numbers[0]
    for number, row in zip(numbers, rows, strict=True):
        if len(row) != len(header):
            raise ValueError(
                f"{name}, line {number}: it has {counted(len(row), 'column')}, the header has "
                f"{len(header)} ({listing(map(short, header))}). A separator or a quote "
                f"inside a text? Columns are split at {delimiter!r}, quoting is "
                f"{'standard' if quoted else 'none'}: see --delimiter and --quoting."
            )
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    repeated = {column: count for column, count in Counter(header).items() if count > 1}
    return Sheet(name, columns, numbers, "line", hint=_HEADER, repeated=repeated)


def _plain(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    # not splitlines(), which also splits at U+2028, U+0085 and others inside a text
    for number, line in enumerate(text.split("\n"), start=1):
        if line := line.removesuffix("\r"):
            yield number, line.split(delimiter)


def _quoted(name: str, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
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
            f"{name}, line {first}: not a valid quoted row ({error}). A quote inside a quoted text "
            f"must be doubled; if quotes are plain text in this file, use --quoting none."
        ) from None
    finally:
        csv.field_size_limit(limit)
