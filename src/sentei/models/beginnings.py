"""The beginning of a long text: as much of it as the tokens take that a model reads.

A tokenizer takes seconds and gigabytes for a text of megabytes, of which 128 tokens are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_MARGIN: Final = 256
"""Tokens beyond those asked for: near a cut a text may be divided otherwise than as a whole."""

_PER_TOKEN: Final = 8
"""Characters that are tried for a token, at first; a text that is not longer stays whole."""

_MORE: Final = 4
"""Times as much is tried next."""


def beginning(text: str, tokens: int, tokenizer: Any) -> str:
    """The beginning of a text, with the same first tokens as the whole.

    It ends between words, or far behind the last token in a text that has no blanks.

    Args:
        text: Of any length.
        tokens: Of the text that are needed.
        tokenizer: Divides it.
    """
    size = (tokens + _MARGIN) * _PER_TOKEN
    while size < len(text):
        blank = max(text.rfind(one, 0, size) for one in " \n\t")
        part = text[: blank if 2 * blank > size else size]
        if _count(part, tokenizer) >= tokens + _MARGIN:
            return part
        size *= _MORE
    return text


def beginnings(text: str, other: str, tokens: int, tokenizer: Any) -> tuple[str, str]:
    """The beginnings of a pair, of which together ``tokens`` are kept, the longer being cut first.

    Args:
        text: The first.
        other: The second.
        tokens: Of both.
        tokenizer: Divides them.
    """
    if max(len(text), len(other)) <= (tokens + _MARGIN) * _PER_TOKEN:
        return text, other
    if len(text) > len(other):
        return beginnings(other, text, tokens, tokenizer)[::-1]
    text = beginning(text, tokens, tokenizer)
    # what was longer stays longer, since that decides which of the two is cut
    return text, beginning(other, max(tokens, _count(text, tokenizer)), tokenizer)


def all_beginnings(
    texts: Sequence[str], others: Sequence[str] | None, tokens: int, tokenizer: Any
) -> tuple[list[str], list[str] | None]:
    """The beginnings of many texts, or of pairs of them: what a tokenizer cuts to ``tokens``."""
    if others is None:
        return [beginning(text, tokens, tokenizer) for text in texts], None
    pairs = [beginnings(*pair, tokens, tokenizer) for pair in zip(texts, others, strict=True)]
    return [text for text, _ in pairs], [other for _, other in pairs]


def first_words(words: Sequence[str], tokens: int, tokenizer: Any) -> list[str]:
    """The first of a text's words, with the same first tokens as all of them."""
    size = (tokens + _MARGIN) * _PER_TOKEN
    while sum(map(len, words)) + len(words) > size:
        some, room = list[str](), size
        for word in words:
            room -= len(word) + 1
            some.append(beginning(word, tokens, tokenizer))
            if room < 0:
                break
        else:
            return some
        if _count(some, tokenizer, is_split_into_words=True) >= tokens + _MARGIN:
            return some
        size *= _MORE
    return list(words)


def _count(text: str | list[str], tokenizer: Any, **options: Any) -> int:
    ids = tokenizer(text, add_special_tokens=False, verbose=False, **options)["input_ids"]
    return len(ids)
