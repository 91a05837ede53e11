"""Labelled texts or pairs of texts, as they were read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from sentei.data.holdout import set_aside
from sentei.data.labels import renumber


@dataclass(frozen=True)
class LabelledTexts:
    """Texts or pairs of texts with their labels.

    ``labels`` are indices into ``label_names`` (classification) or finite values (regression,
    where ``label_names`` is empty). ``source`` says in words where they come from.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[int] | list[float]
    label_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.texts)

    def counts(self) -> dict[str, int]:
        """How often each class occurs, the most frequent first; empty for regression."""
        names = self.label_names
        counts = Counter(names[int(label)] for label in self.labels) if names else Counter[str]()
        return dict(counts.most_common())

    def relabel(self, label_names: Sequence[str]) -> Self:
        """The same examples under another order of the class names, such as a saved model's.

        A model that only has the placeholder names LABEL_0, LABEL_1, ... takes the labels 0, 1, ...

        Raises:
            ValueError: If a label that occurs has no place in ``label_names``.
        """
        if not self.label_names:
            return self
        index = renumber(self.counts(), label_names, self.source)
        labels = [index[self.label_names[int(label)]] for label in self.labels]
        return replace(self, labels=labels, label_names=tuple(label_names))

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Set a part aside for evaluation, the same on every machine and every version of Python.

        Each class gives round(its size x ``fraction``) examples, but at least one where it has two
        and never its last. Within a class the order is that of a hash of seed and text, which does
        not depend on the order of the file. Repeated texts are all on one side.

        Raises:
            ValueError: ``fraction`` is not inside (0, 1), or nothing can be set aside.
        """
        strata = self.labels if self.label_names else None
        pairs = self.pairs or [""] * len(self)
        keys = [f"{text}\0{pair}" for text, pair in zip(self.texts, pairs, strict=True)]
        columns = ("texts", "pairs", "labels")
        return set_aside(self, columns, keys, strata, "row", fraction=fraction, seed=seed)
