"""Rows out of JSON: a list of objects, or an object a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sentei.data import formats
from sentei.data.table import Gathered, Sheet
from sentei.messages import short
from sentei.untrusted import parse_json


def read_lines(name: str, text: str) -> Sheet:
    """The objects of a text with one a line.

    Raises:
        ValueError: A line is not one, or names a key twice; names the line.
    """
    records, numbers = list[object](), list[int]()
    for number, line in enumerate(formats.lines(text), start=1):
        if line.strip():
            records.append(parse_json(line, f"{name}, line {number}"))
            numbers.append(number)
    return _sheet(name, records, numbers, "line")


def read_list(name: str, text: str) -> Sheet:
    """The objects of a text that is one list of them.

    Raises:
        ValueError: It is none, or an item is not an object; names the place.
    """
    try:
        records = parse_json(text, name)
    except ValueError as error:
        fix = "; with one object a line, name it .jsonl" if "Extra data" in str(error) else ""
        raise ValueError(f"{error}{fix}") from error
    if not isinstance(records, list) or not records:
        raise ValueError(f"{name} must hold a list of objects with at least one in it.")
    return _sheet(name, records, range(1, len(records) + 1), "item")


def _sheet(
    name: str, records: list[object], numbers: Sequence[int], unit: Literal["line", "item"]
) -> Sheet:
    rows = list[dict[str, object]]()
    for number, record in zip(numbers, records, strict=True):
        if not isinstance(record, dict):
            raise ValueError(
                f"{name}, {unit} {number}: {short(record)} is not an object; "
                f'an example is written {{"text": "...", "label": "..."}}.'
            )
        rows.append(record)
    keys = dict.fromkeys(key for row in rows for key in row)
    return Sheet(name, Gathered(keys, lambda key, _: [row.get(key) for row in rows]), numbers, unit)
