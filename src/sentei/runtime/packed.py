"""A batch without its padding: the tokens that are computed, one sequence after the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sentei.runtime.encoder import Array, Unsupported


@dataclass(frozen=True, eq=False)
class Packed:
    """What the core runs.

    Attention is blind to order and positions are in the ids, so that masked tokens are left out,
    but for those that something reads: the first of each sequence, all of a sequence that has no
    other, and with relative positions those before others.
    """

    lengths: Array
    """(sequences,) int64: tokens of each, those of all lie one after the other; none is empty."""

    ids: tuple[Array, ...] | None
    """Of each table of the embeddings, (tokens,) int64; or else ``rows``."""

    rows: Array | None
    """(tokens, hidden) float32: the embeddings themselves."""

    masked: Array | None
    """(tokens,) bool: not read as a key, while its own hidden state is computed; None: none is."""

    out: Array
    """(tokens,) int64: the row of the output that each token's hidden state is written to."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Which tokens of a batch are computed: all of them where ``kept`` is None."""

    batch: int
    length: int
    kept: Array | None = None
    """Their numbers in the flattened batch, rising."""

    masked: Array | None = None

    lengths: Array | None = None

    def take(self, values: Array) -> Array:
        """Of values of all tokens, (batch * length, ...), those of the tokens that are computed."""
        return values if self.kept is None else values[self.kept]

    def packed(self, ids: tuple[Array, ...] | None, rows: Array | None) -> Packed:
        """The batch, once its ids or rows are known."""
        if self.kept is None or self.lengths is None:
            lengths = np.full(self.batch, self.length) if self.length else _EMPTY
            out = _counted(self.batch * self.length)
        else:
            lengths, out = self.lengths, self.kept
        return Packed(lengths, ids, rows, self.masked, out)


def choose(
    batch: int, length: int, attention_mask: Array | None, *, ordered: bool = False
) -> Tokens:
    """Choose the tokens of a batch that are computed.

    Args:
        batch: Sequences.
        length: Tokens of each, with padding.
        attention_mask: (batch, length), nonzero where a token is read; None: all are.
        ordered: Whether the distance of tokens counts, so that only masked ones at the end go.

    Raises:
        Unsupported: The mask has another shape.
    """
    if attention_mask is None:
        return Tokens(batch, length)
    if attention_mask.shape != (batch, length):
        raise Unsupported(
            f"attention_mask {attention_mask.shape}: the engine takes one number a token, "
            f"{(batch, length)} here"
        )
    if attention_mask.all():
        return Tokens(batch, length)
    read = attention_mask != 0
    kept = read.copy()
    if ordered:
        kept = np.logical_or.accumulate(read[:, ::-1], axis=1)[:, ::-1]
    kept[:, 0] = True
    kept[~read.any(axis=1)] = True
    numbers = np.flatnonzero(kept)
    masked = ~read.ravel()[numbers]
    return Tokens(batch, length, numbers, masked if masked.any() else None, kept.sum(axis=1))


@dataclass(frozen=True)
class Lookup:
    """How a model's ids follow from its inputs."""

    sizes: tuple[int, ...]
    """Rows of each table: words, positions, and token types where the model has them."""

    padding: int | None = None
    """The id that has no position, where the others are counted from the one after it on (RoBERTa);
    None where every token of the batch is counted from 0 on."""

    @cached_property
    def longest(self) -> int:
        """The most tokens that there are positions for."""
        return self.sizes[1] - (0 if self.padding is None else self.padding + 1)

    def ids(
        self,
        input_ids: Array | None,
        tokens: Tokens,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
    ) -> tuple[Array, ...]:
        """The ids of the tokens that are computed, one array a table, all in range.

        Args:
            input_ids: (batch, length); None where the embeddings of words are given, and then the
                first array is left out.
            tokens: Those that are computed.
            token_type_ids: As the model takes them.
            position_ids: As the model takes them.

        Raises:
            ValueError: An id is out of its table's range, or the shape of one does not fit.
        """
        found = []
        words = None if input_ids is None else input_ids.astype(np.int64, copy=False)
        if words is not None:
            found.append(_checked(tokens.take(words.ravel()), self.sizes[0], "input_ids"))
        if position_ids is not None:
            places = _spread(position_ids, tokens, "position_ids")
            found.append(_checked(places, self.sizes[1], "position_ids"))
        else:
            found.append(tokens.take(self._positions(words, tokens)))
        if len(self.sizes) > 2:
            if token_type_ids is None:
                found.append(_zeros(len(found[-1])))
            else:
                types = _spread(token_type_ids, tokens, "token_type_ids")
                found.append(_checked(types, self.sizes[2], "token_type_ids"))
        return tuple(found)

    def _positions(self, words: Array | None, tokens: Tokens) -> Array:
        """As the architectures count them: of all tokens, (batch * length,)."""
        longest = tokens.length
        if self.padding is not None and words is not None:
            real = words != self.padding
            if not real.all():
                places = np.cumsum(real, axis=1)
                longest = int(places[:, -1].max())
                self._check_length(longest)
                places *= real
                places += self.padding
                return places.ravel()
        self._check_length(longest)
        start = 0 if self.padding is None else self.padding + 1
        row = _counted(start + longest)[start:]
        return row if tokens.batch == 1 else np.tile(row, tokens.batch)

    def _check_length(self, length: int) -> None:
        if length > self.longest:
            raise ValueError(
                f"{length} tokens: the model has positions for {self.longest}; cut the texts, such "
                "as with truncation=True"
            )


def _spread(values: Array, tokens: Tokens, name: str) -> Array:
    """Given ids, of one sequence for all or of each."""
    shape = (tokens.batch, tokens.length)
    if values.shape != shape:
        try:
            values = np.broadcast_to(values, shape)
        except ValueError:
            raise ValueError(f"{name} {values.shape} does not fit input_ids {shape}") from None
    return tokens.take(values.astype(np.int64, copy=False).ravel())


def _checked(ids: Array, size: int, name: str) -> Array:
    """Refuse ids that no row of a table belongs to: the core reads them unchecked."""
    # As unsigned numbers the negative ones are the largest: one pass sees both ends.
    if ids.size and ids.view(np.uint64).max() >= size:
        wrong = ids[(ids < 0) | (ids >= size)][0]
        raise ValueError(f"{name} holds {wrong}: the model has 0 to {size - 1}")
    return np.ascontiguousarray(ids)


_EMPTY = np.zeros(0, np.int64)
_counting = np.arange(4096)
_nothing = np.zeros(4096, np.int64)


def _counted(number: int) -> Array:
    """0, 1, 2, ...; not to be written to."""
    return _counting[:number] if number <= len(_counting) else np.arange(number)


def _zeros(number: int) -> Array:
    """Zeros; not to be written to."""
    return _nothing[:number] if number <= len(_nothing) else np.zeros(number, np.int64)


_counting.flags.writeable = False
_nothing.flags.writeable = False
