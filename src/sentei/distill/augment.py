"""More training texts for a student: words replaced by likely others (TinyBERT's procedure).

Each text is written anew ``copies`` times; each of its words is replaced with probability
``replace`` by one of its candidates, drawn evenly. Function words, numbers, punctuation and markup
stay.
Who knows candidates is the caller's business: a masked language model, or nearest neighbours.

Jiao et al., TinyBERT, arXiv 1909.10351, section 3.2; as SparseBERT (arXiv 2104.08682) uses it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

_MARKUP = r"""
    \[[A-Z]+\] | <[/|!]?[^\W\d_][^<>]*>  # [SEP], <br />, <mask>, <|endoftext|>
    | &\#?\w+;                          # &amp;
    | (?:https?://|www\.)\S+
    | [\w.+-]*@[\w.-]+                  # @user, an address
"""
_WORD = re.compile(rf"{_MARKUP} | (?P<word>[^\W_]+(?:['’][^\W_]+)*)", re.VERBOSE)

STOP_WORDS = frozenset(
    """
    a about above after again against ain all am an and any are aren as at be because been before
    being below between both but by can cannot could couldn did didn do does doesn doing don down
    during each few for from further had hadn has hasn have haven having he her here hers herself
    him himself his how i if in into is isn it its itself just let ll ma me mightn more most mustn
    my myself needn no nor not now o of off on once only or other ought our ours ourselves out over
    own re s same shan she should shouldn so some such t than that the their theirs them themselves
    then there these they this those through to too under until up ve very was wasn we were weren
    what when where which while who whom why will with won would wouldn y you your yours yourself
    yourselves
    """.split()
)
"""English function words: another in their place changes what a sentence says."""


@dataclass(frozen=True)
class Word:
    """A word that may be replaced, and where in its text it stands."""

    text: str
    start: int
    end: int


Candidates = Callable[[str, Sequence[Word]], Sequence[Sequence[str]]]
"""For a text and some of its words: what each may be replaced by, the likeliest first."""


def replaceable(text: str) -> list[Word]:
    """The words of a text that may be replaced: letters only, no function words, no markup."""
    words = (Word(m["word"], m.start(), m.end()) for m in _WORD.finditer(text) if m["word"])
    return [word for word in words if word.text.isalpha() and word.text.lower() not in STOP_WORDS]


def augment(
    rows: Iterable[tuple[str, ...]],
    candidates: Candidates,
    *,
    copies: int,
    replace: float,
    seed: int,
) -> Iterator[list[tuple[str, ...]]]:
    """For each row of texts: itself and its copies, without any copy that is there already.

    A row holds one text, or two of a pair, which are both rewritten. What is drawn depends on the
    seed and on the row's own words, not on the rows before it. No copy equals another row's
    original, whose label may be another.
    """
    rows = list(rows)
    seen = set(rows)
    for row in rows:
        parts = []
        for text in row:
            words = replaceable(text)
            parts.append((text, words, candidates(text, words) if words else []))
        rng = random.Random("\0".join([str(seed), *row]))
        versions = [row]
        for _ in range(copies):
            copy = tuple(rewrite(*part, replace=replace, rng=rng) for part in parts)
            if copy not in seen:
                seen.add(copy)
                versions.append(copy)
        yield versions


def rewrite(
    text: str,
    words: Sequence[Word],
    candidates: Sequence[Sequence[str]],
    *,
    replace: float,
    rng: random.Random,
) -> str:
    """The text with each of the words replaced with probability ``replace``."""
    pieces, end = [], 0
    for word, choices in zip(words, candidates, strict=True):
        if choices and rng.random() < replace:
            pieces += [text[end : word.start], _cased(rng.choice(choices), word.text)]
            end = word.end
    return "".join([*pieces, text[end:]])


def _cased(word: str, like: str) -> str:
    """Capitals as in the word that is replaced; a model may know lower case alone."""
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word
