"""Rows of texts: single ones, pairs with scores, or queries with what answers them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from sentei.data.holdout import set_aside
from sentei.data.labels import parses
from sentei.data.table import Table
from sentei.messages import counted, listing, short
from sentei.tasks.examples import Unlabelled

QUERY: Final = ("query",)
PASSAGE: Final = ("document", "passage", "corpus")
"""What a text of a row is, by the names of the prompts for it."""

BY_SCORES: Final = ("spearman", "pearson")
BY_TWO_SCORES: Final = "average_precision"
BY_ANSWERS: Final = ("ndcg@10", "recall@1", "recall@5", "recall@10", "mrr@10")
BY_REFERENCE: Final = ("neighbors@10", "cosine")
"""Metrics, by what evaluation data have, the headline first."""

_ALONE: Final = ("text", "sentence", "content")
_PAIRS: Final = (
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
)
_ROWS: Final = (
    *(("query", "positive"), ("anchor", "positive"), ("question", "positive")),
    *(("query", "passage"), ("query", "document"), ("question", "answer")),
)
_SCORES: Final = ("score", "label", "similarity_score")
"""What columns are called where nobody says."""


@dataclass(frozen=True)
class TextRows(Unlabelled):
    """Rows of as many texts each.

    ``scores`` are finite numbers, one a row of two texts, the more the more alike; None where there
    are none. Rows of several texts without scores are a query, a passage that answers it, and one
    that does not.
    """

    rows: list[tuple[str, ...]]
    scores: list[float] | None
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def places(self) -> int:
        """Texts of a row."""
        return len(self.rows[0])

    @property
    def answers(self) -> bool:
        """Whether rows are queries with passages."""
        return self.scores is None and self.places > 1

    @property
    def roles(self) -> tuple[tuple[str, ...], ...]:
        """What the texts of a row are, for their prompts."""
        if not self.answers:
            return ((),) * self.places
        return (QUERY, *(PASSAGE,) * (self.places - 1))

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Rows without a part, and the part; of queries all rows of one on one side.

        Raises:
            ValueError: ``fraction`` is not inside (0, 1), or nothing can be set aside.
        """
        keys = [row[0] if self.answers else "\0".join(row) for row in self.rows]
        columns, noun = ("rows", "scores"), "row" if self.places > 1 else "text"
        return set_aside(self, columns, keys, None, noun, fraction=fraction, seed=seed)


@dataclass(frozen=True)
class Columns:
    """Columns as they were named; None where nobody did."""

    text: str | None = None
    pair: str | None = None
    negative: str | None = None
    label: str | None = None

    def read(self, table: Table) -> TextRows:
        """The rows of a table.

        Raises:
            ValueError: It is not clear which columns hold them, or a cell does not fit.
        """
        texts, label = self._choose(table)
        options = ("--text-column", "--pair-column", "--negative-column")
        cells = [table.texts(n, o) for n, o in zip(texts, options[: len(texts)], strict=True)]
        rows = [*zip(*cells, strict=True)]
        for number, row in enumerate(rows):
            if empty := [name for name, text in zip(texts, row, strict=True) if not text.strip()]:
                table.fail(number, f"the text in column {empty[0]!r} is empty; take the row out.")
        scores = None if label is None else _scores(table, label)
        read = " + ".join(texts) + (f" -> {label}" if label else "")
        noun = "row" if len(texts) > 1 else "text"
        return TextRows(rows, scores, f"{table.name} ({read}, {counted(len(rows), noun)})")

    def _choose(self, table: Table) -> tuple[tuple[str, ...], str | None]:
        """The columns of the texts, and that of the scores if there is one."""
        names = tuple(filter(None, (self.text, self.pair, self.negative))) or self._obvious(table)
        if len(names) == 2:
            usual = next((name for name in _SCORES if name in table.columns), None)
            return names, self.label or usual
        if self.label:
            raise ValueError(
                f"--label-column {self.label}: scores belong to pairs of texts, and "
                f"{listing(names)} {'is no pair' if len(names) == 1 else 'are three'}; leave the "
                "option out, or name two columns with --text-column and --pair-column"
            )
        return names, None

    def _obvious(self, table: Table) -> tuple[str, ...]:
        columns = table.columns
        choices: list[tuple[str, ...]] = [p for p in (*_PAIRS, *_ROWS) if {*p} <= {*columns}]
        choices = choices or [(name,) for name in _ALONE if name in columns]
        if len(choices) != 1:
            raise ValueError(
                f"{table.name}: it is not obvious which columns hold the texts. Its columns are "
                f"{listing(map(short, columns))}; choose with --text-column, and for rows of "
                f"several with --pair-column.{table.hint}"
            )
        names = choices[0]
        negative = names in _ROWS and "negative" in columns
        return (*names, "negative") if negative else names


def _scores(table: Table, column: str) -> list[float]:
    scores = list[float]()
    for row, cell in enumerate(table.column(column, "--label-column")):
        if not isinstance(cell, str | int | float) or not parses(float, cell):
            table.fail(
                row,
                f"the score {short(cell)} is not a number; correct it, or leave pairs without "
                "scores.",
            )
        score = float(cell)
        if not math.isfinite(score):
            table.fail(row, f"the score is {score}; it must be finite.")
        scores.append(score)
    return scores


def two_valued(scores: Sequence[float]) -> bool:
    """Whether scores say yes or no."""
    return len(set(scores)) == 2
