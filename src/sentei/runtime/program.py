"""A compiled encoder: its packed weights, its kernels, and how a batch runs through them."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Final, get_args

import numpy as np

from sentei.messages import listing
from sentei.runtime import library
from sentei.runtime.cpu import Isa, Precision, Target, host
from sentei.runtime.encoder import Array, Encoder, Unsupported
from sentei.runtime.kernels import driver
from sentei.runtime.kernels.product import TILE
from sentei.runtime.lanes import LARGE, Lanes, even, lay_out
from sentei.runtime.layout import MOST_INPUTS
from sentei.runtime.packed import Packed
from sentei.runtime.plan import Plan
from sentei.runtime.stages import Chain, Stages
from sentei.runtime.threads import available, threads
from sentei.runtime.workspace import Workspace, aligned

GROUP_LANES: Final = 512
"""Lanes that one thread computes at a time, where sequences are not longer."""

LEAST_WORK: Final = 800.0
"""Predicted microseconds for each of the threads that compute one group together: it takes as long
to wake them where a machine is busy or virtual."""

_DRIVE = ctypes.CFUNCTYPE(
    None,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_void_p,
)


class _Order:
    """Stages and operations as the driver reads them."""

    def __init__(self, chains: Sequence[Chain], code: library.Library, *, divided: bool) -> None:
        self.stages: list[list[int]] = []
        operations: list[list[int]] = []
        for chain in chains:
            parts = [chain.operations] if not divided else [(one,) for one in chain.operations]
            for some in parts:
                divisible = divided and not chain.heads and some[0].divisible
                kind = int(chain.heads > 0)
                self.stages.append([kind, chain.heads or 1, len(operations), len(some), divisible])
                operations += [
                    [*(code[name] for name in one.kernels), one.arguments.ctypes.data]
                    for one in some
                ]
        self.operations = np.array(operations, np.int64)

    def words(self, parts: int) -> Array:
        """The stages, with panels divided into so many parts where they can be."""
        return np.array(
            [[kind, parts if can else fixed, *rest] for kind, fixed, *rest, can in self.stages],
            np.int64,
        )


class Program:
    """An encoder, compiled.

    Args:
        encoder: What it computes.
        precision: ``fp32``, ``bf16``, ``int8``, or ``auto`` for the fastest that the CPU has.
        threads: Threads of one call, at most; by default the cores that the process may use.
        isa: Use less than the CPU has; see :func:`sentei.runtime.cpu.host`.

    Raises:
        Unsupported: The CPU has no such precision, or a matrix is too wide.
    """

    def __init__(
        self,
        encoder: Encoder,
        precision: str = "auto",
        threads: int | None = None,
        isa: Isa | None = None,
    ) -> None:
        target = host(isa)
        self.precision: Precision = _precision(precision, target)
        _check(encoder)
        self.threads = _threads(threads)
        stages = Stages(encoder, self.precision, target)
        first, *body = stages.body()
        kinds = (True, False) if encoder.embeddings else (True,)
        chains = {
            rows: [Chain((*stages.enter(rows=rows), *first.operations)), *body] for rows in kinds
        }
        self.plan = Plan(self.precision, target.isa, tuple(stages.steps))
        self._code = library.load([*stages.functions.values(), driver.build()], target)
        self._drive = _DRIVE(self._code["drive"])
        self._orders = {
            (rows, divided): _Order(some, self._code, divided=divided)
            for rows, some in chains.items()
            for divided in (False, True)
        }
        self._keep = stages.keep
        self._tables = () if encoder.embeddings is None else encoder.embeddings.tables
        self._head_size = max(layer.head_size for layer in encoder.layers)
        self._sizes = stages.feature_bytes(max(1, len(self._tables)))
        self._half = stages.half_attention
        self._most = 64 if target.wide else 32
        self._lock = threading.Lock()
        self._spaces: list[Workspace] = []
        self._scratches: list[Array] = []

    def run(self, packed: Packed, out: Array) -> None:
        """Compute hidden states.

        Args:
            packed: The tokens.
            out: fp32 (rows, hidden), contiguous in a row; rows that no token belongs to stay.
        """
        assert out.dtype == np.float32 and out.strides[1] == 4
        lengths = packed.lengths
        if not len(lengths):
            return
        groups = _groups(lengths, min(GROUP_LANES, -(-int(lengths.sum()) // self.threads)))
        if len(groups) == 1:
            microseconds = int(lengths.sum()) / LARGE * self.plan.microseconds
            team = max(1, min(self.threads, int(microseconds / LEAST_WORK)))
            self._group(packed, out, *groups[0], team=team)
            return
        turns = iter(groups)
        turn = threading.Lock()

        def work(number: int) -> None:
            del number
            while True:
                with turn:
                    group = next(turns, None)
                if group is None:
                    return
                self._group(packed, out, *group, team=1)

        threads.together(work, min(self.threads, len(groups)))

    def close(self) -> None:
        """Let go of memory that is kept for the next call."""
        with self._lock:
            self._spaces.clear()
            self._scratches.clear()

    def _group(
        self, packed: Packed, out: Array, begin: int, end: int, first: int, *, team: int
    ) -> None:
        """Compute some sequences, by one thread or by several side by side."""
        lanes = lay_out(packed.lengths[begin:end], self._most)
        panels = len(lanes.widths)
        # Threads that have a panel each meet at attentions alone; others at every operation.
        divided = panels % team > 0 and panels < 3 * team
        order = self._orders[packed.ids is None, divided]
        stages = order.words(-(-2 * team // panels) if divided else 1)
        space = self._workspace(lanes, shared=team == 1)
        try:
            record = space.fill(lanes, packed, first, self._tables, out, len(stages))
            self._drive_all(order, stages, record, space, lanes, team)
        finally:
            with self._lock:
                self._spaces.append(space)

    def _drive_all(
        self,
        order: _Order,
        stages: Array,
        record: Array,
        space: Workspace,
        lanes: Lanes,
        team: int,
    ) -> None:
        size = self._scratch_bytes(lanes)
        done = [False] * team

        def work(number: int) -> None:
            scratch = None
            try:
                scratch = self._scratch(size)
                self._drive(
                    stages.ctypes.data,
                    len(stages),
                    order.operations.ctypes.data,
                    record.ctypes.data,
                    scratch.ctypes.data,
                    team,
                    _PAUSE,
                )
                done[number] = True
            finally:
                if not done[number]:
                    space.release_waiting()
                if scratch is not None:
                    with self._lock:
                        self._scratches.append(scratch)

        threads.together(work, team)

    def _workspace(self, lanes: Lanes, *, shared: bool) -> Workspace:
        """Memory that is free and large enough, or new."""
        with self._lock:
            for number, space in enumerate(self._spaces):
                if space.shared == shared and space.lanes >= lanes.count:
                    return self._spaces.pop(number)
        return Workspace(self._sizes, max(lanes.count, GROUP_LANES), shared=shared)

    def _scratch_bytes(self, lanes: Lanes) -> int:
        pairs = self._head_size // 2 if self._half else self._head_size
        attention = 2 * pairs + lanes.longest
        return 4 * LARGE * max(TILE, attention)

    def _scratch(self, size: int) -> Array:
        with self._lock:
            for number, scratch in enumerate(self._scratches):
                if len(scratch) >= size:
                    return self._scratches.pop(number)
        return aligned(size)


def _precision(name: str, target: Target) -> Precision:
    if name == "auto":
        return target.precisions[0]
    if name not in get_args(Precision):
        raise Unsupported(f"precision {name}: give auto, {', '.join(get_args(Precision))}")
    if name not in target.precisions:
        needs = {"int8": "AVX-512 VNNI or AVX-VNNI", "bf16": "AVX512_BF16"}[name]
        raise Unsupported(
            f"precision {name} needs {needs}, and this CPU ({target.name}, used as {target.isa}) "
            f"has {listing(target.precisions)}; give precision='auto'"
        )
    return name


def _check(encoder: Encoder) -> None:
    if not encoder.layers:
        raise Unsupported("the model has no blocks: there is nothing that an engine makes faster")
    if encoder.hidden < 16 or encoder.hidden % 4:
        raise Unsupported(f"hidden size {encoder.hidden}: the engine takes multiples of 4 from 16")
    for layer in encoder.layers:
        for linear in (layer.query, layer.out, layer.ffn_in, layer.ffn_out):
            if linear.weight.shape[1] > MOST_INPUTS:
                raise Unsupported(
                    f"{linear.name} has {linear.weight.shape[1]} inputs; the engine takes at most "
                    f"{MOST_INPUTS}"
                )
        if layer.head_size % 2:
            raise Unsupported(f"{layer.query.name}: heads of an odd size, {layer.head_size}")


def _threads(count: int | None) -> int:
    if count is not None and count < 1:
        raise ValueError(f"threads {count}: give 1 or more, or nothing for one a core")
    return available() if count is None else count


def _groups(lengths: Array, most: int) -> list[tuple[int, int, int]]:
    """Neighbouring sequences of so many lanes together: from, to, and the first one's token."""
    groups = []
    begin = lanes = token = 0
    ends = np.cumsum(lengths).tolist()
    for number, length in enumerate(even(lengths).tolist()):
        if lanes and lanes + length > most:
            groups.append((begin, number, token))
            begin, lanes, token = number, 0, ends[number - 1]
        lanes += length
    return [*groups, (begin, len(lengths), token)]


def _pause() -> int:
    """The address of what offers the core to others; 0 where the system has none to call."""
    try:
        return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
    except (OSError, TypeError, AttributeError):
        return 0


_PAUSE: Final = _pause()
