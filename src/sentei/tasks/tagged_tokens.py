"""Tokens of tagged sentences: the first piece of a word has its tag."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sentei.data.features import Ragged, Tokens, check_length, chunks
from sentei.models.beginnings import first_words
from sentei.tasks.tagged_sentences import TaggedSentences

IGNORED: Final = -100
"""What a loss of transformers passes over."""


class TaggedTokens(Tokens):
    """Tokenised sentences; ``words`` are the places of the words whose first piece has a label."""

    def __init__(self, columns: dict[str, Ragged], words: Ragged, padding: int | None) -> None:
        super().__init__(columns, [padding])
        self.words = words


def tokenise(examples: TaggedSentences, tokenizer: Any, max_length: int) -> TaggedTokens:
    """Tokenise sentences, cut to ``max_length`` tokens.

    Raises:
        ValueError: ``max_length`` is more than the model takes or leaves no room for text.
    """
    check_length(max_length, tokenizer)
    columns: dict[str, Ragged] = {}
    places = Ragged()
    for chunk in chunks(len(examples)):
        rows = tokenizer(
            [first_words(words, max_length, tokenizer) for words in examples.sentences[chunk]],
            is_split_into_words=True,
            truncation=True,
            max_length=max_length,
        )
        labels, words = list[list[int]](), list[list[int]]()
        for row, tags in enumerate(examples.tags[chunk]):
            first = _first_pieces(rows.word_ids(row))
            labels.append([IGNORED if word is None else tags[word] for word in first])
            words.append([word for word in first if word is not None])
        for name, values in (*rows.items(), ("labels", labels)):
            columns.setdefault(name, Ragged()).extend(values)
        places.extend(words)
    return TaggedTokens(columns, places, tokenizer.pad_token_id)


def _first_pieces(words: Iterable[int | None]) -> list[int | None]:
    """The word of each piece that is the first of one; None for all others."""
    first, before = list[int | None](), None
    for word in words:
        first.append(None if word == before else word)
        before = word
    return first
