"""Sentences of tokens with a tag for each, in the BIO notation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from sentei.data.holdout import set_aside
from sentei.data.labels import as_name, renumber, warn_of_likes
from sentei.messages import counted, listing, short

OUTSIDE: Final = "O"
"""The tag of what is no entity."""


@dataclass(frozen=True)
class TaggedSentences:
    """Sentences of tokens, with the number of each token's tag in ``label_names``."""

    sentences: list[list[str]]
    tags: list[list[int]]
    label_names: tuple[str, ...]
    source: str

    @classmethod
    def of(
        cls,
        sentences: list[list[str]],
        tags: list[list[str]],
        source: str,
        names: tuple[str, ...] | None = None,
    ) -> Self:
        """Sentences with their tags by name.

        Args:
            sentences: The tokens of each.
            tags: A tag for each token.
            source: Where they come from, in words.
            names: The tags in their order; None takes O first, then B and I of every entity.

        Raises:
            ValueError: There is no tag but O.
        """
        if names is None:
            tags = [[as_name(tag) for tag in row] for row in tags]
            entities = sorted({tag[2:] for row in tags for tag in row if tag != OUTSIDE})
            warn_of_likes(entities, source)
            names = (OUTSIDE, *(f"{prefix}-{entity}" for entity in entities for prefix in "BI"))
        if len(names) < 2:
            raise ValueError(
                f"{source}: every tag is {OUTSIDE}, so that there is nothing to find; are these "
                f"the right columns? See {listing(['--tokens-column', '--tags-column'])}."
            )
        index = {name: i for i, name in enumerate(names)}
        numbers = [[index[tag] for tag in row] for row in tags]
        return cls(sentences, numbers, names, f"{source}, {counted(len(sentences), 'sentence')}")

    def __len__(self) -> int:
        return len(self.sentences)

    def counts(self) -> dict[str, int]:
        """How often each tag occurs, the most frequent first."""
        counts = Counter(tag for tags in self.tags for tag in tags)
        return {self.label_names[tag]: count for tag, count in counts.most_common()}

    def relabel(self, label_names: Sequence[str]) -> Self:
        """The same under another order of the tags, such as a saved model's.

        Raises:
            ValueError: If a tag that occurs has no place in ``label_names``.
        """
        index = renumber(self.counts(), label_names, self.source)
        tags = [[index[self.label_names[tag]] for tag in row] for row in self.tags]
        return replace(self, tags=tags, label_names=tuple(label_names))

    def split(self, fraction: float, seed: int) -> tuple[Self, Self]:
        """Some sentences set aside.

        Raises:
            ValueError: There are too few.
        """
        keys = [" ".join(sentence) for sentence in self.sentences]
        columns = ("sentences", "tags")
        return set_aside(self, columns, keys, None, "sentence", fraction=fraction, seed=seed)


def fault(word: object, tag: object) -> str:
    """What is wrong with a token and its tag; empty where nothing is."""
    if not isinstance(word, str) or not word:
        return f"the token {short(word)} is not a word; take it out."
    if not isinstance(tag, str) or not tag:
        return f"the tag {short(tag)} of {short(word)} is not a name; write O, B-... or I-..."
    prefix, dash, entity = tag.partition("-")
    if tag == OUTSIDE or (prefix in ("B", "I") and dash and entity):
        return ""
    return (
        f"the tag {short(tag)} of {short(word)} is not BIO: write O outside of entities, B-... "
        f"for the first token of one and I-... for the others."
    )
