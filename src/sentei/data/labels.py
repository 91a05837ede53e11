"""Class names: as a column writes them, and in the order in which a model knows them."""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NoReturn

from sentei.messages import SenteiWarning, counted, listing, short
from sentei.models.classes import placeholders

_INVISIBLE: Final = dict.fromkeys(map(ord, "\u200b\u2060\ufeff"))

_ABSENT: Final = ("nan", "NaN", "NAN", "<NA>")
"""What pandas writes where there is no value."""


def as_name(text: str) -> str:
    """The name of a class that a text writes: one, however its blanks and accents are written."""
    return " ".join(unicodedata.normalize("NFC", text.translate(_INVISIBLE)).split())


def read_names(
    cells: Iterable[object], fail: Callable[[int, str], NoReturn], instead: str
) -> list[str]:
    """The names of classes in the cells of a column; whole numbers as such, 1.0 as 1.

    Args:
        cells: Texts, numbers or truth values.
        fail: Raises with the place of a row.
        instead: What to do where labels are decimal numbers.
    """
    names = [_name(cell, row, fail) for row, cell in enumerate(cells)]
    distinct = set(names)
    if not all(parses(float, name) for name in distinct):
        return names
    whole = {name: _whole(name) for name in distinct}
    for row, name in enumerate(names):
        if whole[name] is None:
            fail(row, f"the label {short(name)} is a decimal number. {instead}")
    return [str(whole[name]) for name in names]


def _name(cell: object, row: int, fail: Callable[[int, str], NoReturn]) -> str:
    if isinstance(cell, bool):
        return str(cell).lower()
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        cell = ""
    if not isinstance(cell, str | int | float):
        fail(row, f"the label is {short(cell)}; a label is a name or a whole number.")
    if isinstance(cell, int) and cell.bit_length() > 64:
        fail(row, f"the label is {short(cell)}; a label has at most 64 bits.")
    name = as_name(str(cell))
    if not name:
        fail(row, "there is no label; add it or take the row out.")
    if name in _ABSENT:
        fail(
            row,
            f"the label is {name!r}, which stands for none; add it or take the row out. A class "
            f"needs another name.",
        )
    return name


def _whole(name: str) -> str | None:
    """A number as a class is called after it; None of one that is not whole."""
    if parses(int, name):
        return name
    value = float(name)
    return str(int(value)) if abs(value) < 2**53 and value.is_integer() else None


def parses(kind: type[int] | type[float], value: str | int | float) -> bool:
    """Whether it is a number of that kind."""
    try:
        kind(value)
    except (ValueError, OverflowError):
        return False
    return True


def in_order(names: Iterable[str], source: str) -> tuple[str, ...]:
    """Distinct names in their order: numbers by value, others by letters.

    Names that may be meant for one are said, with their source.
    """
    distinct = set(names)
    if all(parses(int, name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    warn_of_likes(distinct, source)
    return tuple(sorted(distinct))


def warn_of_likes(names: Iterable[str], source: str) -> None:
    """Say that names differ in nothing that one hears: they may be meant for one class."""
    alike = defaultdict[str, list[str]](list)
    for name in sorted(names):
        alike[_heard(name)].append(name)
    for some in alike.values():
        if len(some) > 1:
            warnings.warn(
                f"{source}: the labels {' and '.join(map(short, some))} differ in capitals or in "
                f"the form of their letters alone, and are {len(some)} classes: write one name if "
                f"they are one.",
                SenteiWarning,
                stacklevel=3,
            )


def _heard(name: str) -> str:
    """A name without what makes no difference to a reader; 1.0 as 1."""
    name = as_name(unicodedata.normalize("NFKC", name)).casefold()
    return (_whole(name) or name) if parses(float, name) else name


def renumber(counts: Mapping[str, int], names: Sequence[str], source: str) -> dict[str, int]:
    """The number of each class name that occurs, under another order of the names.

    A model that only has the placeholder names LABEL_0, LABEL_1, ... takes the labels 0, 1, ...
    Capitals, blanks and the form of letters make no difference, unless two names differ by them
    alone.

    Args:
        counts: How often each name occurs.
        names: The names in their order, such as a saved model's.
        source: Where the labels come from, for the error.

    Raises:
        ValueError: If a name that occurs has no place in ``names``.
    """
    index = {name: i for i, name in enumerate(names)}
    if tuple(names) == placeholders(len(names)):
        index |= {str(i): i for i in range(len(names))}
    heard = Counter(map(_heard, index))
    alone = {_heard(name): i for name, i in index.items() if heard[_heard(name)] == 1}
    index = {name: alone[_heard(name)] for name in counts if _heard(name) in alone} | index
    if unknown := {name: count for name, count in counts.items() if name not in index}:
        cases = [f"{short(name)} ({counted(count, 'row')})" for name, count in unknown.items()]
        fix = "Correct these rows or take them out."
        if len(unknown) == len(counts):
            fix = "If they are the same under other names, write the model's into the data."
        raise ValueError(
            f"{source}: label {listing(cases)} is not among the labels that the model is "
            f"trained for: {listing(map(short, names))}. {fix}"
        )
    return {name: index[name] for name in counts}
