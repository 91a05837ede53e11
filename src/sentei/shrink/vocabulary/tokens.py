"""Which tokens of a tokenizer stay, and its description with those alone.

The description is the JSON of the ``tokenizers`` library, read as plain data. These stay:

- every special and added token, and every token that the tokenizer's post-processor, its padding
  or the model's configs name by its id;
- every token that occurs ``least`` times in the texts, special tokens included;
- WordPiece: all single characters of the vocabulary, alone and with the mark of a continuation, so
  that a word of known characters does not become unknown; and the pieces found in an unknown word
  of the texts, so that it stays unknown. WordPiece takes the longest piece that there is: with
  fewer others it takes the same;
- BPE: all single characters (in byte-level BPE the bytes), the bytes to fall back to, and the
  tokens that are made on the way from characters to a token that stays. A merge stays if both parts
  and their product do. Every merge that was applied in a text lies on the way to one of its tokens,
  and still comes first among those that can be applied;
- Unigram: all single characters and bytes, and the piece with the lowest score, from which the
  score of unknown characters is taken. The best of all ways to split a text is the best of fewer;
- WordLevel: nothing else.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Encoding, Tokenizer

Text = str | tuple[str, str]
"""A text, or a pair of texts that are one input."""

Description = dict[str, Any]

_BATCH = 1000
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def check_known(description: Description) -> None:
    """Refuse a tokenizer whose tokens cannot be told to be of no use.

    Raises:
        ValueError: Its model is of another kind than those of :func:`find_used`.
    """
    model = description["model"]
    if model["type"] not in ("WordPiece", "BPE", "Unigram", "WordLevel"):
        raise ValueError(
            f"the tokenizer's model is {model['type']}: which of its tokens a text needs is known "
            "for WordPiece, BPE, Unigram and WordLevel"
        )
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model["type"] == "BPE" and model.get(affix):
            raise ValueError(
                f"the tokenizer's {affix} is {model[affix]!r}: BPE is known here without marks at "
                "the ends of words (byte-level and with metaspaces)"
            )


def encode(tokenizer: Tokenizer, texts: Sequence[Text]) -> Iterator[Encoding]:
    """Texts as a tokenizer splits them, with special tokens, neither cut nor padded."""
    whole = Tokenizer.from_str(tokenizer.to_str())
    whole.no_truncation()
    whole.no_padding()
    whole.encode_special_tokens = tokenizer.encode_special_tokens
    for start in range(0, len(texts), _BATCH):
        yield from whole.encode_batch(list(texts[start : start + _BATCH]))


def find_used(
    tokenizer: Tokenizer, description: Description, texts: Sequence[Text], least: int
) -> set[int]:
    """Ids of the tokens that stay for a tokenizer to split some texts as before.

    Args:
        tokenizer: The tokenizer.
        description: The same as data.
        texts: The texts.
        least: How often a token must occur in them.
    """
    model, vocabulary = description["model"], vocabulary_of(description)
    counts = Counter[int]()
    used = {holder[key] for holder, key in _places(description)}
    unknown = vocabulary.get(str(model.get("unk_token")))
    for text, encoding in zip(texts, encode(tokenizer, texts), strict=True):
        counts.update(encoding.ids)
        if model["type"] == "WordPiece" and unknown in encoding.ids:
            for word in _words(tokenizer, text, encoding, unknown):
                used |= _way_to_nowhere(word, vocabulary, model)
    used |= {number for number, count in counts.items() if count >= least}
    if unknown is not None:
        used.add(unknown)
    if model["type"] == "WordLevel":
        return used & set(tokenizer.get_vocab().values())
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        used.add(scores.index(min(scores)))
    if model["type"] == "BPE":
        ranks = {pair: rank for rank, pair in enumerate(map(_pair, model["merges"]))}
        names = [name for name, number in vocabulary.items() if number in used]
        used |= {vocabulary[part] for name in names for part in _derivation(name, ranks)}
    mark = model.get("continuing_subword_prefix") or ""
    for name, number in vocabulary.items():
        if 1 in (len(name), len(name.removeprefix(mark))) or _BYTE.fullmatch(name):
            used.add(number)
    return used & set(tokenizer.get_vocab().values())


def cut(description: Description, new: Mapping[int, int]) -> None:
    """Leave some tokens in a description, in place, under new ids.

    Args:
        description: The description.
        new: The new id of each token that stays, in the order of the old ones.
    """
    model = description["model"]
    for holder, key in _places(description):
        holder[key] = new.get(holder[key], holder[key])
    if isinstance(model["vocab"], dict):
        old = sorted(model["vocab"].items(), key=lambda item: item[1])
        model["vocab"] = {name: new[number] for name, number in old if number in new}
    else:
        model["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in new]
    if "merges" in model:
        pairs = [(merge, *_pair(merge)) for merge in model["merges"]]
        left = model["vocab"]
        model["merges"] = [
            merge for merge, a, b in pairs if a in left and b in left and a + b in left
        ]


def vocabulary_of(description: Description) -> dict[str, int]:
    """Ids by token of a tokenizer's model, without tokens that were added beside it."""
    vocabulary = description["model"]["vocab"]
    if isinstance(vocabulary, dict):
        return vocabulary
    return {name: number for number, (name, _) in enumerate(vocabulary)}


def _places(description: Description) -> Iterator[tuple[Any, Any]]:
    """Everything outside the vocabulary that is a token's id: what holds it, and under what key."""
    for token in description["added_tokens"]:
        yield token, "id"
    if description["padding"]:
        yield description["padding"], "pad_id"
    if description["model"].get("unk_id") is not None:
        yield description["model"], "unk_id"
    if description["post_processor"]:
        yield from _places_of(description["post_processor"])


def _places_of(processor: Description) -> Iterator[tuple[Any, Any]]:
    if processor["type"] == "Sequence":
        for part in processor["processors"]:
            yield from _places_of(part)
    elif processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            yield from ((token["ids"], place) for place in range(len(token["ids"])))
    elif processor["type"] in ("BertProcessing", "RobertaProcessing"):
        yield from ((processor[end], 1) for end in ("sep", "cls"))


def _words(tokenizer: Tokenizer, text: Text, encoding: Encoding, unknown: int) -> Iterator[str]:
    """The unknown words of a text, as WordPiece was shown them."""
    parts = (text,) if isinstance(text, str) else text
    places = zip(encoding.ids, encoding.offsets, encoding.sequence_ids, strict=True)
    for number, (start, end), sequence in places:
        if number == unknown and sequence is not None:
            word = parts[sequence][start:end]
            yield tokenizer.normalizer.normalize_str(word) if tokenizer.normalizer else word


def _way_to_nowhere(word: str, vocabulary: dict[str, int], model: Description) -> set[int]:
    """The pieces that WordPiece finds before it gives a word up; it does not try long words.

    Without one of them it would find a shorter piece, and might then not give up.
    """
    pieces = set[int]()
    if len(word) > model["max_input_chars_per_word"]:
        return pieces
    mark, start = model["continuing_subword_prefix"], 0
    while start < len(word):
        lead = mark if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if lead + word[start:end] in vocabulary), None)
        if end is None:
            break
        pieces.add(vocabulary[lead + word[start:end]])
        start = end
    return pieces


def _derivation(name: str, ranks: Mapping[tuple[str, str], int]) -> set[str]:
    """The tokens that BPE makes on its way from characters to a token; none if it never does."""
    symbols, derived = list(name), set[str]()
    while len(symbols) > 1:
        pairs = [
            (ranks[pair], place)
            for place, pair in enumerate(itertools.pairwise(symbols))
            if pair in ranks
        ]
        if not pairs:
            return set()
        _, place = min(pairs)
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]
        derived.add(symbols[place])
    return derived


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second
