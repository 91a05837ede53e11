"""A table of cells, read strictly: every row knows its place, every column is asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from sentei.data.formats import HALF
from sentei.messages import did_you_mean, listing, short


class Gathered(Mapping[str, list[Any]]):
    """Columns gathered from rows when they are asked for: there may be as many as cells.

    Args:
        names: Of the columns, in their order.
        gather: The cells of the column of that name and place.
    """

    def __init__(self, names: Iterable[str], gather: Callable[[str, int], list[Any]]) -> None:
        self._places: dict[str, int] = {}
        for place, name in enumerate(names):
            self._places.setdefault(name, place)
        self._gather = gather

    def __getitem__(self, name: str) -> list[Any]:
        return self._gather(name, self._places[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True)
class Sheet:
    """The cells of one file or dataset, by column; None where a row has no such cell."""

    name: str
    columns: Mapping[str, Sequence[object]]
    numbers: Sequence[int]
    """Of every row, as ``unit`` counts it."""
    unit: Literal["line", "item", "row"]
    hint: str = ""
    """What else to say of a column that is not there."""
    repeated: Mapping[str, int] = field(default_factory=dict)
    """Columns that the header names more than once, and how often."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns whose cells are numbers, or lists of numbers, of these names."""

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, name: str, option: str) -> list[object]:
        """The cells of a column; ``option`` is what would choose another.

        Raises:
            ValueError: There is no such column, or there are several, or a cell cannot be text.
        """
        if name not in self.columns:
            raise ValueError(no_column(self.name, name, self.columns, option) + self.hint)
        if name in self.repeated:
            raise ValueError(
                f"{self.name}: the header names the column {short(name)} {self.repeated[name]} "
                f"times, and it is not clear which is meant: give each its own name."
            )
        cells = [*self.columns[name][:]]
        for number, cell in zip(self.numbers, cells, strict=True):
            if _halved(cell):
                raise ValueError(
                    f"{self.name}, {self.unit} {number}: column {short(name)} holds half of a "
                    f"character (a surrogate without the other), where a text was cut: "
                    f"{short(cell)}; correct it or take the row out."
                )
        return cells


@dataclass(frozen=True)
class Table:
    """The rows of one sheet, or of several one after another."""

    name: str
    sheets: tuple[Sheet, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns in their order."""
        return tuple(dict.fromkeys(name for sheet in self.sheets for name in sheet.columns))

    @property
    def hint(self) -> str:
        """What else to say of a column that is not there."""
        return self.sheets[0].hint

    def column(self, name: str, option: str) -> list[object]:
        """The cells of a column; ``option`` is what would choose another.

        Raises:
            ValueError: A sheet has no such column.
        """
        return [cell for sheet in self.sheets for cell in sheet.column(name, option)]

    def texts(self, name: str, option: str) -> list[str]:
        """The texts of a column; ``option`` is what would choose another.

        Raises:
            ValueError: A sheet has no such column, or a cell holds no text.
        """
        texts = list[str]()
        for row, cell in enumerate(self.column(name, option)):
            if cell is None:
                self.fail(row, f"there is no value in column {name!r}; add it or take the row out.")
            if not isinstance(cell, str):
                self.fail(row, f"column {name!r} holds {short(cell)}, which is not a text.")
            texts.append(cell)
        return texts

    def labels(self, name: str, option: str) -> list[object]:
        """The cells of a column, the names of classes in place of their numbers; None for -1.

        Raises:
            ValueError: A sheet has no such column, or a number has no name.
        """
        names = self.classes(name)
        cells = self.column(name, option)
        if names is None:
            return cells
        for row, cell in enumerate(cells):
            if not _has_names(cell, names):
                self.fail(row, f"the label {short(cell)} is none of the {len(names)} declared.")
        return [_named(cell, names) for cell in cells]

    def classes(self, name: str) -> tuple[str, ...] | None:
        """The names of the classes that a column declares, in their order; None without any.

        Raises:
            ValueError: Two sheets declare others.
        """
        first, *others = self.sheets
        for sheet in others:
            if sheet.classes.get(name) != first.classes.get(name):
                raise ValueError(
                    f"{sheet.name} declares other classes in its column {name!r} than "
                    f"{first.name}: files that are read together must have the same."
                )
        return first.classes.get(name)

    def fail(self, row: int, reason: str) -> NoReturn:
        """Raise ValueError with the place of ``row``."""
        for sheet in self.sheets:
            if row < len(sheet):
                raise ValueError(f"{sheet.name}, {sheet.unit} {sheet.numbers[row]}: {reason}")
            row -= len(sheet)
        raise IndexError(row)


def no_column(place: str, name: str, columns: Iterable[str], option: str) -> str:
    """What to say of a column that ``place`` lacks; ``option`` is what would choose another."""
    columns = list(columns)
    return (
        f"{place} has no column {name!r}{did_you_mean(name, columns) or '.'} "
        f"Its columns are {listing(map(short, columns))}; choose with {option}."
    )


def _has_names(label: Any, names: tuple[str, ...]) -> bool:
    if isinstance(label, list):
        return all(_has_names(one, names) for one in label)
    return label is None or label < len(names)


def _named(label: Any, names: tuple[str, ...]) -> Any:
    if isinstance(label, list):
        return [_named(one, names) for one in label]
    # -1 stands for a label that is withheld, as in GLUE's test splits
    return None if label is None or label < 0 else names[label]


def _halved(cell: object) -> bool:
    """Whether half of a character stands alone: JSON can write what no text holds."""
    if isinstance(cell, str):
        return not cell.isascii() and HALF.search(cell) is not None
    if isinstance(cell, Mapping):
        return any(map(_halved, cell.values()))
    return isinstance(cell, list) and any(map(_halved, cell))
