"""Attention of ragged sequences over panels, beside numpy, on guarded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from helpers.guarded import SIDES, guarded, zeros
from helpers.kernels import CPUS, bf16, call, from_bf16, targets
from sentei.runtime.kernels.attention import BLOCKS, NEVER, Block, Form, build
from sentei.runtime.kernels.kernel import LARGEST_LANE, Call, Slot
from sentei.runtime.lanes import Lanes, lay_out

KINDS = tuple(
    (cpu, half)
    for cpu in CPUS
    for half in (False, True)[: 1 + targets()[cpu].bf16]
    if cpu != "vnni"  # as avx512
)
SENTINEL = 77.0


@dataclass
class Case:
    """Sequences with random queries, keys and values."""

    lengths: tuple[int, ...]
    size: int
    heads: int = 1
    masked: float = 0.0
    relative: bool = False
    side: str = "end"

    def __post_init__(self) -> None:
        rng = np.random.default_rng(sum(self.lengths) + self.size)
        tokens = sum(self.lengths)
        shape = (3, tokens, self.heads, self.size)
        self.inputs = rng.normal(size=shape).astype(np.float32)
        self.inputs[:2] *= 2 / self.size**0.25
        self.masked_tokens = rng.random(tokens) < self.masked
        self.reach = max(self.lengths) - 1
        self.table = rng.normal(size=(self.heads, 2 * self.reach + 1)).astype(np.float32)

    def panels(self, lanes: Lanes, rows: np.ndarray, fill: float = 0.0) -> list[np.ndarray]:
        """(tokens, features) as one (features, lanes) a panel."""
        there = lanes.tokens >= 0
        whole = np.full((rows.shape[1], lanes.count), fill, rows.dtype)
        whole[:, there] = rows[lanes.tokens[there]].T
        ends = lanes.starts + lanes.widths
        return [guarded(whole[:, a:b], self.side) for a, b in zip(lanes.starts, ends, strict=True)]

    def run(self, cpu: str, half: bool, most: int) -> np.ndarray:
        """(tokens, heads, size)."""
        target, lanes = targets()[cpu], lay_out(np.array(self.lengths), most)
        tokens = sum(self.lengths)
        bias = np.where(self.masked_tokens, NEVER, 0).astype(np.float32)[:, None]
        slots = {Slot.BIAS: self.panels(lanes, bias, 2 * NEVER)}
        flat = self.inputs.reshape(3, tokens, -1)
        for slot, rows in zip((Slot.QUERY, Slot.KEY, Slot.VALUE), flat, strict=True):
            slots[slot] = self.panels(lanes, bf16(rows) if half else rows)
        slots[Slot.CONTEXT] = [
            guarded(np.full((flat.shape[2], width), SENTINEL, np.float32), self.side)
            for width in lanes.widths
        ]
        padded = np.pad(self.table[:, ::-1], ((0, 0), (LARGEST_LANE,) * 2), constant_values=np.nan)
        table = guarded(np.ascontiguousarray(padded), self.side)
        words = [self.size, self.heads, table.ctypes.data, padded.shape[1] // 2]
        records = {
            Call.BLOCKS: guarded(lanes.blocks, self.side),
            Call.PARTS: guarded(lanes.parts, self.side),
        }
        for number, width in enumerate(lanes.block_sizes.tolist()):
            function = build(Form(width, half, self.relative), target)
            pairs = self.size // 2 if half else self.size
            keys = int(lanes.blocks[number, Block.KEYS])
            size = 4 * width * (pairs + keys) + 4 * LARGEST_LANE * pairs * half
            scratch = zeros(size, np.uint8, self.side)
            call(
                function, target, words, slots, item=number, parts=self.heads,
                scratch=scratch, records=records,
            )  # fmt: skip
        whole = np.concatenate(slots[Slot.CONTEXT], axis=1)
        self.check_others(lanes, whole)
        result = np.empty((tokens, flat.shape[2]), np.float32)
        there = lanes.tokens >= 0
        result[lanes.tokens[there]] = whole[:, there].T
        return result.reshape(tokens, self.heads, self.size)

    def check_others(self, lanes: Lanes, whole: np.ndarray) -> None:
        """Lanes of no sequence stay; that which makes a number even may be written."""
        ends = np.cumsum([length + length % 2 for length in self.lengths])
        assert (whole[:, ends[-1] :] == SENTINEL).all()

    def expected(self, half: bool) -> tuple[np.ndarray, np.ndarray]:
        """The result, and the same of magnitudes."""
        inputs = from_bf16(bf16(self.inputs)) if half else self.inputs
        query, key, value = inputs.astype(np.float64)
        result, magnitudes = np.empty_like(query), np.empty_like(query)
        start = 0
        for length in self.lengths:
            part = slice(start, start + length)
            scores = np.einsum("qhf,khf->hqk", query[part], key[part])
            if self.relative:
                steps = np.arange(length)
                scores += self.table[:, steps - steps[:, None] + self.reach]
            masked = self.masked_tokens[part]
            scores = np.where(masked, -np.inf, scores) if not masked.all() else 0 * scores
            weights = np.exp2(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            result[part] = np.einsum("hqk,khf->qhf", weights, value[part])
            magnitudes[part] = np.einsum("hqk,khf->qhf", weights, np.abs(value[part]))
            start += length
        return result, magnitudes

    def check(self, cpu: str, half: bool, most: int) -> None:
        found = self.run(cpu, half, most)
        expected, magnitudes = self.expected(half)
        bound = (4.2e-3 if half else 2e-5) * magnitudes + 1e-7
        assert (np.abs(found - expected) - bound).max() <= 0


RAGGED = [(1,), (2,), (3, 5, 1), (16,), (17, 1, 30), (64,), (33, 64, 7), (63, 1, 65, 2), (130, 9)]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("most", BLOCKS)
@pytest.mark.parametrize("cpu, half", KINDS)
def test_ragged(cpu, half, most, side):
    for lengths in RAGGED:
        Case(lengths, 8, heads=2, side=side).check(cpu, half, most)
        Case(lengths, 6, heads=3, relative=True, side=side).check(cpu, half, most)


@pytest.mark.parametrize("cpu, half", KINDS)
def test_head_sizes(cpu, half):
    for number, size in enumerate([2, 4, 6, 10, 14, 32, 64, 66, 126, 128]):
        for relative in (False, True):
            for most in BLOCKS:
                side = SIDES[number % 2]
                Case((37, 70), size, relative=relative, side=side).check(cpu, half, most)


@pytest.mark.parametrize("cpu, half", KINDS)
def test_numbers_of_keys(cpu, half):
    for length in (
        2,
        4,
        6,
        8,
        10,
        14,
        15,
        22,
        31,
        32,
        34,
        48,
        62,
        66,
        126,
        128,
        192,
        254,
        511,
        512,
    ):
        Case((length,), 4, relative=length % 3 == 0).check(cpu, half, 64)


@pytest.mark.parametrize("most", BLOCKS)
@pytest.mark.parametrize("cpu, half", KINDS)
def test_masked(cpu, half, most):
    for lengths in RAGGED:
        Case(lengths, 16, masked=0.5).check(cpu, half, most)
        Case(lengths, 16, masked=0.5, relative=True).check(cpu, half, most)


@pytest.mark.parametrize("most", BLOCKS)
@pytest.mark.parametrize("cpu, half", KINDS)
def test_all_masked_is_uniform(cpu, half, most):
    for lengths in RAGGED:
        Case(lengths, 16, masked=1).check(cpu, half, most)
        Case(lengths, 16, masked=1, relative=True).check(cpu, half, most)


@pytest.mark.parametrize("cpu, half", KINDS)
def test_large_scores(cpu, half):
    """One key wins; nothing overflows."""
    case = Case((40, 24), 8)
    case.inputs[:2] *= 100
    result = case.run(cpu, half, 64)
    expected, magnitudes = case.expected(half)
    assert np.isfinite(result).all()
    assert np.quantile(np.abs(result - expected) - 0.01 * magnitudes, 0.99) <= 0
