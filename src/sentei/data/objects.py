"""Rows out of JSON: a list of objects, or an object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from sentei.data.table import Sheet
from sentei.messages import short


def read_lines(name: str, text: str) -> Sheet:
    """The objects of a text with one a line.

    Raises:
        ValueError: A line is not one; names it.
    """
    records, numbers = list[object](), list[int]()
    # not splitlines(), which also splits at U+2028, U+0085 and others inside a text
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{name}, line {number}: not valid JSON ({error.msg} at column {error.colno}). "
                f"Each line must be one object."
            ) from None
        numbers.append(number)
    return _sheet(name, records, numbers, "line")


def read_list(name: str, text: str) -> Sheet:
    """The objects of a text that is one list of them.

    Raises:
        ValueError: It is none, or an item is not an object; names the place.
    """
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        fix = (
            "with one object a line, name it .jsonl" if error.msg == "Extra data" else "correct it"
        )
        raise ValueError(
            f"{name}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno}); "
            f"{fix}."
        ) from None
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
    return Sheet(name, {key: [row.get(key) for row in rows] for key in keys}, numbers, unit)
