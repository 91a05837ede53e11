"""Where tokens lie: each once, and all that attention reads of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sentei.runtime.kernels.attention import Block, Part
from sentei.runtime.kernels.kernel import WIDTHS
from sentei.runtime.lanes import LARGE, block_size, even, lay_out, panel_widths

lengths_ = st.one_of(
    st.lists(st.integers(1, 12), min_size=1, max_size=40),
    st.lists(st.integers(1, 200), min_size=1, max_size=8),
    st.lists(st.sampled_from([1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 128]), min_size=1, max_size=9),
)
most_ = st.sampled_from(WIDTHS)
thorough = settings(derandomize=True, deadline=None, database=None, max_examples=150)


@thorough
@given(lengths=lengths_, most=most_)
def test_every_token_once(lengths, most):
    lanes = lay_out(np.array(lengths), most)
    there = lanes.tokens[lanes.tokens >= 0]
    assert there.tolist() == list(range(sum(lengths)))
    assert lanes.count == lanes.widths.sum()
    assert lanes.longest == even(np.array(lengths)).max()
    at = 0
    for length in lengths:
        assert (lanes.tokens[at : at + length] >= 0).all()
        at += length + length % 2
        assert length % 2 == 0 or lanes.tokens[at - 1] == -1
    assert (lanes.tokens[at:] == -1).all()


@thorough
@given(lengths=lengths_, most=most_)
def test_panels(lengths, most):
    lanes = lay_out(np.array(lengths), most)
    assert set(lanes.widths.tolist()) <= set(WIDTHS)
    assert (lanes.widths[:-1] == LARGE).all()
    assert lanes.starts.tolist() == (np.cumsum(lanes.widths) - lanes.widths).tolist()
    used = int(even(np.array(lengths)).sum())
    assert used <= lanes.count
    smaller = [width for width in WIDTHS if width < lanes.widths[-1]]
    assert all(lanes.count - lanes.widths[-1] + width < used for width in smaller)


@thorough
@given(lengths=lengths_, most=most_)
def test_parts_are_the_keys_and_blocks_the_queries(lengths, most):
    """Of each sequence all lanes, once, in order; a block has the parts of its sequence."""
    lanes = lay_out(np.array(lengths), most)
    starts, blocks, parts = lanes.starts, lanes.blocks.tolist(), lanes.parts.tolist()
    begin = number = 0
    for length in lengths:
        keys = length + length % 2
        first = blocks[number][Block.PARTS]
        own = parts[first : first + blocks[number][Block.COUNT]]
        at = begin
        for part in own:
            assert part[Part.WIDTH] == lanes.widths[part[Part.PANEL]]
            assert starts[part[Part.PANEL]] + part[Part.LANE] == at
            assert part[Part.BEFORE] == at - begin and part[Part.LANE] % 2 == 0
            assert part[Part.COUNT] % 2 == 0
            assert part[Part.LANE] + part[Part.COUNT] <= part[Part.WIDTH]
            at += part[Part.COUNT]
        assert at == begin + keys
        at = begin
        while at < begin + keys:
            block, size = blocks[number], int(lanes.block_sizes[number])
            lane = starts[block[Block.PANEL]] + block[Block.LANE]
            assert size in WIDTHS and size <= most and block[Block.LANE] % 16 == 0
            assert block[Block.LANE] + size <= block[Block.WIDTH]
            assert block[Block.WIDTH] == lanes.widths[block[Block.PANEL]]
            assert 0 <= block[Block.FROM] < block[Block.TO] <= size
            assert lane + block[Block.FROM] == at
            assert block[Block.POSITION] == lane - begin
            assert [block[Block.PARTS], block[Block.COUNT]] == [first, len(own)]
            assert block[Block.KEYS] == keys
            at = lane + block[Block.TO]
            number += 1
        assert at == begin + keys
        begin += keys
    assert number == len(blocks) == len(lanes.block_sizes)


def test_widths():
    assert panel_widths(1) == [16] and panel_widths(17) == [32] and panel_widths(33) == [64]
    assert panel_widths(64) == [64] and panel_widths(128) == [64, 64]
    assert panel_widths(130) == [64, 64, 16]
    assert [block_size(lanes, 32) for lanes in (1, 16, 17, 64)] == [16, 16, 32, 32]
    assert even(np.array([1, 2, 3])).tolist() == [2, 2, 4]
