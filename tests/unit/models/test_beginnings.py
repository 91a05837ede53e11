"""Long texts are cut before they are tokenised, to the same tokens."""

from __future__ import annotations

import random
from itertools import product

import pytest

from helpers import tokenizers
from sentei.models.beginnings import beginning, beginnings, first_words

LENGTH = 20


@pytest.fixture(scope="module", params=tokenizers.ALL)
def tokenizer(request):
    return tokenizers.ALL[request.param]()


def words(count, seed=0):
    pool = " ".join(tokenizers.TEXTS[:3]).split()
    return random.Random(seed).choices(pool, k=count)


LONG = {
    "words": " ".join(words(1100)),
    "lines": "\n".join(words(1100)),
    "tabs and blanks": "\t  \n ".join(words(1100)),
    "no blank": "".join(words(1100)),
    "one letter": "a" * 8_000,
    "signs": "-" * 8_000,
    "ideographs": "電影很好看" * 1600,
    "blanks first": " " * 5_000 + " ".join(words(1100)),
    "no letter": "\u00a0" * 8_000 + "film",
    "a word, then a giant": "the film " + "x" * 8_000 + " was good",
    "a giant, then words": "x" * 4000 + " " + " ".join(words(1100)),
    "joined by U+00A0": "\u00a0".join(words(1100)),
    "one blank, early": "the " + "電影" * 3_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
@pytest.mark.parametrize("length", [LENGTH, 128])
def test_the_first_tokens_are_those_of_the_whole(tokenizer, text, length):
    options = {"truncation": True, "max_length": length}
    cut = beginning(text, length, tokenizer)
    assert text.startswith(cut)
    assert tokenizer(cut, **options) == tokenizer(text, **options)


def test_most_of_a_long_text_is_left_out(tokenizer):
    for name in ("words", "lines", "ideographs"):
        assert len(beginning(LONG[name], LENGTH, tokenizer)) < 4000
    assert beginning("the film", LENGTH, tokenizer) == "the film"


PAIRS = {
    "both long": (" ".join(words(800)), " ".join(words(1100, 1))),
    "long and short": (" ".join(words(1100)), "the film"),
    "long and fairly long": (" ".join(words(1100)), " ".join(words(350, 1))),
    "both fairly long": (" ".join(words(300)), " ".join(words(350, 1))),
    "many tokens in few characters": (" ".join(words(1100)), "電" * 700),
    "empty": ("", " ".join(words(1100))),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize(("swapped", "length"), [*product([False, True], [127, 128])])
def test_pairs_keep_what_they_kept(tokenizer, pair, swapped, length):
    pair = pair[::-1] if swapped else pair
    options = {"truncation": True, "max_length": length}
    cut = beginnings(*pair, length, tokenizer)
    assert tokenizer(*cut, **options) == tokenizer(*pair, **options)


SENTENCES = {
    "many": words(1500),
    "a giant": ["the", "x" * 8_000, "film"],
    "giants": ["電影" * 3000] * 4,
    "blanks": ["\u00a0"] * 4000 + ["film"],
    "few": words(3),
}


@pytest.mark.parametrize("sentence", SENTENCES.values(), ids=SENTENCES)
def test_words_of_a_sentence(tokenizer, sentence):
    tokenizer = _as_words(tokenizer)
    options = {"truncation": True, "max_length": LENGTH, "is_split_into_words": True}
    some = first_words(sentence, LENGTH, tokenizer)
    ours, whole = tokenizer(some, **options), tokenizer(sentence, **options)
    assert ours["input_ids"] == whole["input_ids"] and ours.word_ids() == whole.word_ids()


def _as_words(tokenizer):
    state = tokenizer.backend_tokenizer
    if getattr(state.pre_tokenizer, "add_prefix_space", True) is False:
        state.pre_tokenizer.add_prefix_space = True
    return tokenizer
