"""Where tokens lie: sequences one after the other in panels of 64 lanes, the last one smaller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sentei.runtime.encoder import Array
from sentei.runtime.kernels.attention import Block, Part
from sentei.runtime.kernels.kernel import GRANULE, WIDTHS

LARGE = WIDTHS[-1]


@dataclass(frozen=True, eq=False)
class Lanes:
    """The panels of some sequences.

    ``widths`` and ``starts`` are of panels, in lanes; ``tokens`` gives the token in each lane, -1
    where there is none. ``blocks`` and ``parts`` are the records that attention reads: of the
    queries' lanes, as many as ``block_sizes`` says, and of where each sequence has its keys.
    """

    widths: Array
    starts: Array
    tokens: Array
    blocks: Array
    parts: Array
    block_sizes: Array

    @property
    def count(self) -> int:
        """All lanes."""
        return len(self.tokens)

    @property
    def longest(self) -> int:
        """Lanes of the longest sequence."""
        return int(self.blocks[:, Block.KEYS].max(initial=0))


def even(lengths: Array) -> Array:
    """Lanes that sequences take: keys are read in pairs."""
    taken: Array = lengths + (lengths & 1)
    return taken


def panel_widths(lanes: int) -> list[int]:
    """Of as few panels as hold so many lanes."""
    rest = lanes % LARGE
    last = [next(width for width in WIDTHS if width >= rest)] if rest else []
    return [LARGE] * (lanes // LARGE) + last


def lay_out(lengths: Array, most: int) -> Lanes:
    """Give sequences their lanes.

    Args:
        lengths: Tokens of each, at least 1.
        most: Lanes of a block of queries, at most.
    """
    taken = even(lengths)
    ends = np.cumsum(taken)
    widths = panel_widths(int(ends[-1]))
    starts = np.concatenate([[0], np.cumsum(widths)])
    tokens = np.full(starts[-1], -1, np.int64)
    first = 0
    blocks: list[list[int]] = []
    sizes: list[int] = []
    parts: list[list[int]] = []
    for begin, length in zip((ends - taken).tolist(), lengths.tolist(), strict=True):
        tokens[begin : begin + length] = np.arange(first, first + length)
        first += length
        own = list(_parts(begin, begin + length + (length & 1), widths))
        for panel, width, lane, count, before in own:
            keys = own[-1][3] + own[-1][4]
            for size, *where in _blocks(width, lane, lane + count, most):
                position = before - lane + where[0]
                blocks.append([panel, width, *where, len(parts), len(own), keys, position])
                sizes.append(size)
        parts += own
    return Lanes(
        widths=np.array(widths, np.int64),
        starts=starts[:-1].astype(np.int64),
        tokens=tokens,
        blocks=np.array(blocks, np.int64).reshape(-1, len(Block)),
        parts=np.array(parts, np.int64).reshape(-1, len(Part)),
        block_sizes=np.array(sizes, np.int64),
    )


def _parts(begin: int, end: int, widths: list[int]) -> Iterator[list[int]]:
    """The parts of a sequence: panel, its width, first lane, lanes, lanes in parts before."""
    at = begin
    while at < end:
        panel, lane = divmod(at, LARGE)
        count = min(end - at, widths[panel] - lane)
        yield [panel, widths[panel], lane, count, at - begin]
        at += count


def _blocks(width: int, first: int, last: int, most: int) -> Iterator[list[int]]:
    """Blocks of queries over lanes of a panel: lanes, the first, and those between that count."""
    at = first
    while at < last:
        start = at // GRANULE * GRANULE
        size = block_size(last - start, most)
        start = min(start, width - size)
        end = min(last, start + size)
        yield [size, start, at - start, end - start]
        at = end


def block_size(lanes: int, most: int) -> int:
    """Lanes of the block that covers so many, or as many as one may have."""
    return next((width for width in WIDTHS if width >= min(lanes, most)), most)
