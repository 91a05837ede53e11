"""The memory of one group of sequences while it is computed."""

from __future__ import annotations

import numpy as np

from sentei.runtime.encoder import Array
from sentei.runtime.kernels.attention import NEVER
from sentei.runtime.kernels.kernel import Call, Slot
from sentei.runtime.lanes import LARGE, Lanes
from sentei.runtime.packed import Packed

KEPT = frozenset(
    {
        Slot.STREAM,
        Slot.QUERY,
        Slot.KEY,
        Slot.VALUE,
        Slot.CONTEXT,
        Slot.BIAS,
        Slot.ROWS,
        Slot.OUT,
    }
)
"""Buffers that a panel keeps while others are computed; one thread needs the rest once."""


def aligned(size: int, to: int = 64) -> Array:
    """Zeroed bytes at an address that is a multiple."""
    whole = np.zeros(size + to, np.uint8)
    start = -whole.ctypes.data % to
    return whole[start : start + size]


class Workspace:
    """Buffers for groups of up to some lanes.

    Args:
        sizes: Bytes of each buffer for one token.
        lanes: Most lanes of a group.
        shared: Whether panels share the buffers that they need one after the other.
    """

    def __init__(self, sizes: dict[Slot, int], lanes: int, *, shared: bool) -> None:
        self.lanes, self.shared = lanes, shared
        self._sizes = np.array([sizes[slot] for slot in Slot], np.int64)
        moving = [slot in KEPT or not shared for slot in Slot]
        self._strides = np.where(moving, self._sizes, 0)
        self._buffers = [
            aligned(size * (lanes if moves else LARGE))
            for size, moves in zip(self._sizes.tolist(), moving, strict=True)
        ]
        self._bases = np.array([one.ctypes.data for one in self._buffers], np.int64)
        self._trash = aligned(sizes[Slot.STREAM])
        """A row that lanes without a token are written to."""

        self._words: list[Array] = []

    def _floats(self, slot: Slot, count: int) -> Array:
        return self._buffers[slot][: 4 * count].view(np.float32)

    def _longs(self, slot: Slot, count: int) -> Array:
        return self._buffers[slot][: 8 * count].view(np.int64)

    def fill(
        self,
        lanes: Lanes,
        packed: Packed,
        first: int,
        tables: tuple[Array, ...],
        out: Array,
        stages: int,
    ) -> Array:
        """Write what a group of sequences is into the buffers.

        Args:
            lanes: Where its tokens lie.
            packed: All sequences.
            first: The group's first token.
            tables: Whose rows the embeddings are the sums of.
            out: fp32 (rows, hidden).
            stages: Stages of the program.

        Returns:
            The record of the call.
        """
        count = lanes.count
        there = lanes.tokens >= 0
        token = np.where(there, lanes.tokens, 0) + first
        if packed.ids is not None:
            rows = [
                table.ctypes.data + ids[token] * table.strides[0]
                for table, ids in zip(tables, packed.ids, strict=True)
            ]
        else:
            assert packed.rows is not None
            rows = [packed.rows.ctypes.data + token * packed.rows.strides[0]]
        self._longs(Slot.OUT, count)[:] = np.where(
            there, out.ctypes.data + packed.out[token] * out.strides[0], self._trash.ctypes.data
        )
        bias = self._floats(Slot.BIAS, count)
        bias[:] = np.where(there, 0.0, 2 * NEVER)
        if packed.masked is not None:
            bias[packed.masked[token] & there] = NEVER
        step = int(self._sizes[Slot.ROWS]) // 8  # as many as tables; rows that are given are one
        places = self._longs(Slot.ROWS, count * step)
        for start, width in zip(lanes.starts.tolist(), lanes.widths.tolist(), strict=True):
            here = places[start * step :][: width * len(rows)].reshape(len(rows), width)
            for number, addresses in enumerate(rows):
                here[number] = addresses[start : start + width]
        return self._record(lanes, stages)

    def _record(self, lanes: Lanes, stages: int) -> Array:
        panels = len(lanes.widths)
        table = self._bases[:, None] + self._strides[:, None] * lanes.starts
        counters = aligned(64 * (stages + 2)).view(np.int64)
        counters[:] = 0
        lengths = np.array([panels, len(lanes.blocks)], np.int64)
        classes = [_class(lanes.widths), _class(lanes.block_sizes)]
        kinds = np.array([one.ctypes.data for one in classes], np.int64)
        record = np.zeros(len(Call), np.int64)
        record[Call.BUFFERS] = table.ctypes.data
        record[Call.PANELS] = panels
        record[Call.BLOCKS] = lanes.blocks.ctypes.data
        record[Call.PARTS] = lanes.parts.ctypes.data
        record[Call.COUNTERS] = counters.ctypes.data
        record[Call.BARRIER] = counters.ctypes.data + 64 * (stages + 1)
        record[Call.LENGTHS] = lengths.ctypes.data
        record[Call.CLASSES] = kinds.ctypes.data
        self._words = [table, counters, lengths, *classes, kinds, lanes.blocks, lanes.parts]
        return record

    def release_waiting(self) -> None:
        """Let no thread wait for another that will not come."""
        self._words[1][-8] = 1 << 62


def _class(widths: Array) -> Array:
    """0, 1 or 2 for 16, 32 or 64 lanes."""
    classes: Array = (widths // 32).astype(np.int64)
    return classes
