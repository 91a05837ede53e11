"""Running text: the examples of tasks whose model reads texts end to end, in blocks of one length.

Texts are put end to end and cut into blocks of one length without padding; what does not fill a
block is left out. Perplexity is exp of the mean loss of a token. It depends on tokenizer and block
length: compare only what agrees in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from sentei.data.formats import KNOWN, read_text, suffix
from sentei.data.holdout import set_aside
from sentei.data.table import Table
from sentei.messages import counted
from sentei.tasks.examples import Unlabelled
from sentei.tasks.task import Prediction, mean_loss
from sentei.tasks.text import TextColumn

if TYPE_CHECKING:
    from sentei.data.features import Features
    from sentei.tasks.task import Collator

_TABLES: Final = frozenset(KNOWN) - {".txt"}
"""Files that are tables; any other is one plain text."""


@dataclass(frozen=True)
class Documents(Unlabelled):
    """Texts to read end to end."""

    rows: list[str]
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Some texts set aside, or the end of the only one.

        Raises:
            ValueError: There are too few, or the only one cannot be cut.
        """
        if len(self) == 1:
            return self._end_aside(fraction)
        return set_aside(self, ("rows",), self.rows, None, "text", fraction=fraction, seed=seed)

    def _end_aside(self, fraction: float) -> tuple[Self, Self]:
        text = self.rows[0]
        cut = text.rfind("\n", 0, round(len(text) * (1 - fraction))) + 1
        if not text[:cut].strip() or not text[cut:].strip():
            raise ValueError(
                f"{self.source}: it has no line end to cut it at; give an evaluation file with "
                f"--eval."
            )
        return (
            replace(self, rows=[text[:cut]], source=f"{self.source}: its first {1 - fraction:.0%}"),
            replace(self, rows=[text[cut:]], source=f"{self.source}: its last {fraction:.0%}"),
        )


class RunningText(TextColumn[Documents]):
    """A model that reads blocks of running text."""

    one_each: ClassVar[bool] = False
    usual_length: ClassVar[int] = 512

    def read(self, path: Path, splits: Sequence[str]) -> Documents:
        """One plain text, or the texts of a table.

        Raises:
            ValueError: It cannot be used; names the place, the reason and the fix.
        """
        if path.is_file() and suffix(path) not in _TABLES:
            text = read_text(path, self.encoding).replace("\r\n", "\n").replace("\r", "\n")
            return Documents([text], f"{path}, {counted(len(text), 'character')}")
        return super().read(path, splits)

    def from_table(self, table: Table) -> Documents:
        """The texts of a column."""
        column = self.text_column or "text"
        rows = table.texts(column, "--text-column")
        return Documents(rows, f"{table.name} ({column}), {counted(len(rows), 'text')}")

    def truncated(self, features: Features, processor: Any) -> None:
        """Nothing is cut."""

    def collator(self, processor: Any) -> Collator:
        """Blocks of one length, stacked."""
        from transformers import DefaultDataCollator

        return DefaultDataCollator()


def perplexity(predictions: Sequence[Prediction]) -> float:
    """Exp of the mean loss of all labels.

    Raises:
        ValueError: It is not finite.
    """
    mean = mean_loss(predictions)
    if not math.isfinite(mean):
        raise ValueError(
            f"the model's loss is {mean}: training has diverged; try a lower learning rate."
        )
    return math.exp(min(mean, 700.0))
