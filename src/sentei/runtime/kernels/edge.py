"""In and out: rows of embeddings become panels, panels become rows of the output.

Blocks of 16 tokens by 16 features are transposed in registers, 64 shuffles each, at 12 to 18 % of
the shuffles' roof (`python -m benchmarks.runtime_kernels`); both together are 2 % of a layer's
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, auto
from functools import cache

from sentei.runtime.cpu import Target
from sentei.runtime.ir import INDEX, POINTER, Function, Value
from sentei.runtime.kernels.kernel import FLOATS, GRANULE, Kernel


class Word(IntEnum):
    """Words of the arguments."""

    FEATURES = 0  # at least 16
    PANEL = auto()  # slot of the floats, (features, P)
    ROWS = auto()  # slot of the addresses, (tables, P)


@cache
def enter(tables: int, width: int, target: Target) -> Function:
    """Sum a row of each table for every token, into a panel."""
    kernel = Kernel(f"enter_{tables}_{width}", target)
    f = kernel.f
    panel = kernel.buffer(kernel.argument(Word.PANEL), kernel.item)
    rows = kernel.buffer(kernel.argument(Word.ROWS), kernel.item)
    first, last = kernel.share(f.number(INDEX, width // GRANULE))
    with f.loop(first, last) as granule, _features(kernel) as feature:
        addresses = rows.at(granule.index * (8 * GRANULE))
        block = []
        for token in range(GRANULE):
            total: Value | None = None
            for table in range(tables):
                row = addresses.load(POINTER, 8 * (table * width + token), 8)
                some = row.at(feature * 4).load(FLOATS, 0, 4)
                total = some if total is None else total + some
            assert total is not None
            block.append(total)
        place = panel.at(feature * (4 * width) + granule.index * (4 * GRANULE))
        for number, values in enumerate(transposed(f, block)):
            place.store(values, 4 * width * number, 4)
    return kernel.f


@cache
def leave(width: int, target: Target) -> Function:
    """Write every token of a panel to its row."""
    kernel = Kernel(f"leave_{width}", target)
    f = kernel.f
    panel = kernel.buffer(kernel.argument(Word.PANEL), kernel.item)
    rows = kernel.buffer(kernel.argument(Word.ROWS), kernel.item)
    first, last = kernel.share(f.number(INDEX, width // GRANULE))
    with f.loop(first, last) as granule, _features(kernel) as feature:
        place = panel.at(feature * (4 * width) + granule.index * (4 * GRANULE))
        block = [place.load(FLOATS, 4 * width * number, 4) for number in range(GRANULE)]
        addresses = rows.at(granule.index * (8 * GRANULE))
        for token, values in enumerate(transposed(f, block)):
            row = addresses.load(POINTER, 8 * token, 8)
            row.at(feature * 4).store(values, 0, 4)
    return kernel.f


@contextmanager
def _features(kernel: Kernel) -> Iterator[Value]:
    """A loop over 16 features at a time; the last ones overlap where they do not divide."""
    count = kernel.argument(Word.FEATURES)
    with kernel.f.loop(0, count, GRANULE) as loop:
        end = count - GRANULE
        yield kernel.f.select(end.less(loop.index), end, loop.index)


def transposed(f: Function, block: list[Value]) -> list[Value]:
    """16 vectors of 16: lane i of vector j becomes lane j of vector i."""
    for distance in (8, 4, 2, 1):
        result: list[Value] = list(block)
        low = [i + (i & distance and GRANULE - distance) for i in range(GRANULE)]
        high = [(i | distance) + (i & distance and GRANULE) for i in range(GRANULE)]
        for i in range(GRANULE):
            if not i & distance:
                a, b = block[i], block[i + distance]
                result[i], result[i + distance] = f.shuffle(a, b, low), f.shuffle(a, b, high)
        block = result
    return block
