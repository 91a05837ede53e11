"""The loop over stages: every part of every item once, stages one after the other."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest

from helpers.guarded import guarded
from helpers.kernels import CPUS, load_apart, targets
from sentei.runtime.kernels import driver
from sentei.runtime.kernels.kernel import Call

_DRIVE = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p, ctypes.c_int64] * 1, *[ctypes.c_void_p] * 3,
                          ctypes.c_int64, ctypes.c_void_p)  # fmt: skip
_KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3)


def drive(cpu: str, stages: list, items: list[list[int]], team: int) -> list[tuple]:
    """What the kernels were called with; there are three, one for each class of items."""
    seen, lock = [], threading.Lock()

    def kernel(class_):
        def called(arguments, call, scratch, item, part, parts):
            with lock:
                seen.append((arguments, class_, item, part, parts))

        return _KERNEL(called)

    kernels = [kernel(number) for number in range(3)]
    addresses = [ctypes.cast(one, ctypes.c_void_p).value for one in kernels]
    count = sum(stage[3] for stage in stages)
    operations = guarded(np.array([[*addresses, number] for number in range(count)], np.int64))
    classes = [guarded(np.array(some, np.int64)) for some in items]
    kinds = guarded(np.array([one.ctypes.data for one in classes], np.int64))
    lengths = guarded(np.array([len(some) for some in items], np.int64))
    counters = guarded(np.zeros(8 * len(stages), np.int64))
    barrier = guarded(np.zeros(1, np.int64))
    record = np.zeros(len(Call), np.int64)
    for word, array in [
        (Call.COUNTERS, counters), (Call.BARRIER, barrier), (Call.LENGTHS, lengths),
        (Call.CLASSES, kinds),
    ]:  # fmt: skip
        record[word] = array.ctypes.data
    record, words = guarded(record), guarded(np.array(stages, np.int64))
    run = _DRIVE(load_apart([driver.build()], targets()[cpu])["drive"])
    threads = [
        threading.Thread(
            target=run,
            args=(words.ctypes.data, len(stages), operations.ctypes.data, record.ctypes.data,
                  None, team, None),
        )
        for _ in range(team)
    ]  # fmt: skip
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert barrier[0] == team * len(stages)
    return seen


@pytest.mark.parametrize("team", [1, 2, 3])
@pytest.mark.parametrize("cpu", CPUS)
def test_every_part_once_and_in_order(cpu, team):
    stages = [[0, 1, 0, 2], [1, 3, 2, 1], [0, 4, 3, 1], [1, 1, 4, 3]]
    items = [[2, 2, 0], [1, 0, 2, 2, 1]]
    seen = drive(cpu, stages, items, team)
    assert len(seen) == len(set(seen))
    at = 0
    for kind, parts, first, many in stages:
        expected = {
            (operation or None, class_, item, part, parts)
            for item, class_ in enumerate(items[kind])
            for part in range(parts)
            for operation in range(first, first + many)
        }
        here = seen[at : at + len(expected)]
        assert set(here) == expected
        # Of one part the operations follow one another.
        for one in range(many - 1):
            for item, part in {call[2:4] for call in here}:
                order = [call[0] or 0 for call in here if call[2:4] == (item, part)]
                assert order[one] + 1 == order[one + 1]
        at += len(expected)
    assert at == len(seen)


@pytest.mark.parametrize("cpu", CPUS)
def test_no_item(cpu):
    assert drive(cpu, [[0, 1, 0, 1], [1, 2, 1, 1]], [[], []], 2) == []
