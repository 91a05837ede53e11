"""Blocks of tokens of which some are hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from sentei.data.features import Features, check_length
from sentei.messages import counted, short
from sentei.tasks.blocks import encoded

IGNORED: Final = -100
"""What a loss of transformers passes over."""

MASKED: Final = 0.8
"""Of the chosen tokens, those that the mask token replaces."""

EXCHANGED: Final = 0.1
"""Of the chosen tokens, those that any other token replaces."""

_NEVER: Final = -1
"""Number of the word of a token that is never masked."""

_ALWAYS: Final = 0
"""Seed of the masks that are the same whatever the run's seed, so that its models compare."""


@dataclass(frozen=True)
class Masking:
    """What becomes of tokens.

    ``token`` is the number of the mask token, ``others`` are those of the tokens that may stand in
    a masked one's place, ``special`` those that are never masked.
    """

    probability: float
    whole_words: bool
    token: int
    others: NDArray[np.int64]
    special: NDArray[np.int64]

    @classmethod
    def of(cls, tokenizer: Any, probability: float, *, whole_words: bool) -> Self:
        """With a tokenizer's tokens.

        Raises:
            ValueError: It has no mask token, or does not tell words.
        """
        if tokenizer.mask_token_id is None:
            raise ValueError(
                "--kind masked-text: the tokenizer of --model has no mask token, so the model is "
                "not made to guess masked tokens; name one that is, such as BERT"
            )
        if whole_words and not tokenizer.is_fast:
            raise ValueError(
                "--whole-words: the tokenizer of --model does not tell which tokens make a word; "
                "leave the option out"
            )
        special = np.asarray(sorted(tokenizer.all_special_ids), np.int64)
        vocabulary = np.unique(np.fromiter(tokenizer.get_vocab().values(), np.int64))
        others = np.setdiff1d(vocabulary, special)
        return cls(probability, whole_words, int(tokenizer.mask_token_id), others, special)

    def apply(
        self, ids: NDArray[np.int64], words: NDArray[np.int64], random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What the model is shown of a block, and what it is to guess.

        Args:
            ids: [tokens], the block's.
            words: [tokens], the number of the word that each belongs to; -1 is never masked.
            random: What is drawn from.

        Returns:
            Two [tokens]: the tokens shown, and those that stood there where they are to be guessed,
            -100 elsewhere. At least one word is masked.
        """
        candidates = np.unique(words[words != _NEVER])
        chosen = candidates[random.random(len(candidates)) < self.probability]
        if not len(chosen):
            chosen = random.choice(candidates, 1)  # the loss is a mean, of at least one token
        masked = np.isin(words, chosen)
        labels = np.where(masked, ids, IGNORED)
        fate = random.random(len(ids))
        shown = np.where(masked & (fate < MASKED), self.token, ids)
        exchanged = masked & (fate >= MASKED) & (fate < MASKED + EXCHANGED)
        shown[exchanged] = random.choice(self.others, int(exchanged.sum()))
        return shown, labels


class MaskedBlocks(Features):
    """Blocks of tokens, masked when they are asked for.

    Args:
        ids: [blocks, tokens], special tokens at both ends included.
        words: [blocks, tokens], the word of each token.
        masking: What becomes of them.
        seed: Of the masks, which are others in each epoch; None draws the same ones always.
    """

    def __init__(
        self,
        ids: NDArray[np.int32],
        words: NDArray[np.int32],
        masking: Masking,
        seed: int | None,
    ) -> None:
        self._ids = ids
        self._words = words
        self._masking = masking
        self._seed = seed
        self._epoch = 0
        count, length = ids.shape
        self.summary = f"{counted(count, 'block')} of {length:,} tokens"

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The same for all."""
        return np.full(len(self._ids), self._ids.shape[1])

    @property
    def largest(self) -> Mapping[str, int]:
        """The largest number of a token that may be shown."""
        masking = self._masking
        shown = (self._ids.max(), masking.token, masking.others.max(initial=0))
        return {"input_ids": int(max(shown))}

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        i = range(len(self))[index]
        # A generator for each block: whoever asks, and in whatever order, a run that resumes too.
        drawn = (_ALWAYS, i) if self._seed is None else (self._seed, self._epoch, i)
        ids, words = self._ids[i].astype(np.int64), self._words[i].astype(np.int64)
        shown, labels = self._masking.apply(ids, words, np.random.default_rng(drawn))
        return {"input_ids": shown, "labels": labels}

    def set_epoch(self, epoch: int) -> None:
        """Mask others than in the epoch before."""
        self._epoch = epoch


def pack(
    texts: Sequence[str],
    source: str,
    tokenizer: Any,
    length: int,
    masking: Masking,
    seed: int | None,
) -> MaskedBlocks:
    """Blocks of all texts end to end, each between the tokenizer's special tokens.

    Args:
        texts: In their order.
        source: Where they come from, for the error.
        tokenizer: The token that it puts behind a text stands between two.
        length: Tokens of a block, special tokens included.
        masking: What becomes of them.
        seed: Of the masks; None draws the same ones always.

    Raises:
        ValueError: They do not fill one, or one cannot be masked.
    """
    check_length(length, tokenizer)
    before, after = _around(tokenizer)
    inside = length - len(before) - len(after)
    ids, words = _tokens(texts, tokenizer, masking)
    count = len(ids) // inside
    if not count:
        raise ValueError(
            f"{source}: {counted(len(ids), 'token')} do not fill one block of {length}, of which "
            f"{length - inside} are special; give more text, or a lower --max-length."
        )
    rows, their_words = (one[: count * inside].reshape(count, inside) for one in (ids, words))
    _check(their_words, rows, source, tokenizer, masking)
    first, last = (np.tile(one, (count, 1)) for one in (before, after))
    never = [np.full_like(one, _NEVER) for one in (first, last)]
    return MaskedBlocks(
        np.hstack([first, rows, last]),
        np.hstack([never[0], their_words, never[1]]),
        masking,
        seed,
    )


def _around(tokenizer: Any) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The special tokens that stand before a text and behind it."""
    whole = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return np.asarray(whole[:at], np.int32), np.asarray(whole[at + len(bare) :], np.int32)


def _tokens(
    texts: Sequence[str], tokenizer: Any, masking: Masking
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Every token of texts that are put end to end, and the number of the word that it is of."""
    end = tokenizer.sep_token_id
    between = [] if end is None else [end]
    ids, words, known = list[NDArray[np.int32]](), list[NDArray[np.int32]](), 0
    for piece in encoded(texts, tokenizer):
        own = np.asarray(between if piece is None else piece["input_ids"], np.int32)
        if masking.whole_words and piece is not None:
            numbers = [_NEVER if word is None else word for word in piece.word_ids()]
            number = np.asarray(numbers, np.int32) + known
        else:
            number = np.arange(known, known + len(own), dtype=np.int32)
        known = int(number.max(initial=known - 1)) + 1
        ids.append(own)
        words.append(np.where(np.isin(own, masking.special), np.int32(_NEVER), number))
    nothing = [np.empty(0, np.int32)]
    return np.concatenate(ids or nothing), np.concatenate(words or nothing)


def _check(
    words: NDArray[np.int32],
    ids: NDArray[np.int32],
    source: str,
    tokenizer: Any,
    masking: Masking,
) -> None:
    """Refuse blocks of which nothing is masked, or all."""

    def text(block: np.intp) -> str:
        return f"{source}: a block of {counted(ids.shape[1], 'token')}, " + short(
            tokenizer.decode(ids[block])
        )

    maskable = words != _NEVER
    count = maskable.sum(axis=1)
    if not count.all():
        raise ValueError(
            f"{text(count.argmin())}, holds only special and unknown tokens, and none to mask; "
            "take that text out, or name a model that knows its writing"
        )
    last = words.max(axis=1)
    first = np.where(maskable, words, last[:, None]).min(axis=1)
    lone = (first == last) & (count > 1)
    if masking.whole_words and lone.any():
        raise ValueError(
            f"{text(lone.argmax())}, is one word, which --whole-words would mask whole; take that "
            "text out, or leave the option out"
        )
