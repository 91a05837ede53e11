"""Packing: which tokens are computed, with which ids."""

from __future__ import annotations

import numpy as np
import pytest

from sentei.runtime.encoder import Unsupported
from sentei.runtime.packed import Lookup, choose

BERT = Lookup((40, 20, 2))
ROBERTA = Lookup((40, 20, 1), padding=1)


def mask(*rows):
    return np.array([[int(c) for c in row] for row in rows])


def test_nothing_masked():
    for given in (None, np.ones((2, 3), np.int64), np.ones((2, 3), bool), np.ones((2, 3))):
        packed = choose(2, 3, given).packed(None, None)
        assert packed.lengths.tolist() == [3, 3]
        assert packed.out.tolist() == [0, 1, 2, 3, 4, 5]
        assert packed.masked is None


@pytest.mark.parametrize("dtype", [np.int64, np.int32, bool, np.float32])
def test_masked_tokens_go(dtype):
    packed = choose(3, 4, mask("1100", "1011", "1111").astype(dtype)).packed(None, None)
    assert packed.lengths.tolist() == [2, 3, 4]
    assert packed.out.tolist() == [0, 1, 4, 6, 7, 8, 9, 10, 11]
    assert packed.masked is None


def test_the_first_token_stays():
    packed = choose(2, 4, mask("0011", "0101")).packed(None, None)
    assert packed.lengths.tolist() == [3, 3]
    assert packed.out.tolist() == [0, 2, 3, 4, 5, 7]
    assert packed.masked.tolist() == [True, False, False] * 2


def test_all_masked():
    packed = choose(2, 3, mask("000", "110")).packed(None, None)
    assert packed.lengths.tolist() == [3, 2]
    assert packed.masked.tolist() == [True, True, True, False, False]


def test_ordered():
    packed = choose(4, 4, mask("1010", "0110", "0000", "1111"), ordered=True).packed(None, None)
    assert packed.lengths.tolist() == [3, 3, 4, 4]
    assert packed.out.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15]
    assert packed.masked.tolist() == [0, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("batch, length", [(0, 4), (3, 0), (0, 0)])
def test_nothing(batch, length):
    for given in (None, np.ones((batch, length))):
        tokens = choose(batch, length, given)
        packed = tokens.packed(BERT.ids(np.zeros((batch, length), np.int64), tokens), None)
        assert len(packed.lengths) == len(packed.out) == 0
        assert [len(ids) for ids in packed.ids] == [0, 0, 0]


@pytest.mark.parametrize("shape", [(2, 4), (3, 3), (6,), (2, 1, 3), (2, 1, 3, 3)])
def test_other_masks(shape):
    with pytest.raises(Unsupported, match="attention_mask"):
        choose(2, 3, np.ones(shape))


def test_ids():
    ids = np.array([[5, 6, 7], [8, 9, 0]])
    words, places, types = BERT.ids(ids, choose(2, 3, mask("111", "110")))
    assert words.tolist() == [5, 6, 7, 8, 9]
    assert places.tolist() == [0, 1, 2, 0, 1]
    assert types.tolist() == [0] * 5
    assert all(array.dtype == np.int64 for array in (words, places, types))


def test_given_types_and_positions():
    ids = np.array([[5, 6, 7], [8, 9, 0]], np.int32)
    tokens = choose(2, 3, mask("111", "110"))
    _, places, types = BERT.ids(
        ids, tokens, np.array([[0, 1, 1], [1, 1, 0]]), np.array([[4, 3, 2]])
    )
    assert places.tolist() == [4, 3, 2, 4, 3]
    assert types.tolist() == [0, 1, 1, 1, 1]


def test_positions_of_roberta():
    ids = np.array([[5, 6, 7, 1, 1], [1, 1, 8, 1, 9]])
    _, places, _ = ROBERTA.ids(ids, choose(2, 5, None))
    assert places.tolist() == [2, 3, 4, 1, 1, 1, 1, 2, 1, 3]
    _, places, _ = ROBERTA.ids(ids[:, :3] * 0 + 5, choose(2, 3, None))
    assert places.tolist() == [2, 3, 4, 2, 3, 4]


def test_embeddings_given():
    places, types = BERT.ids(None, choose(1, 3, None))
    assert places.tolist() == [0, 1, 2] and types.tolist() == [0, 0, 0]
    places, _ = ROBERTA.ids(None, choose(1, 3, None))
    assert places.tolist() == [2, 3, 4]


def test_too_long():
    BERT.ids(np.full((1, 20), 5), choose(1, 20, None))
    with pytest.raises(ValueError, match="21 tokens: the model has positions for 20"):
        BERT.ids(np.full((1, 21), 5), choose(1, 21, None))
    ROBERTA.ids(np.full((1, 18), 5), choose(1, 18, None))
    with pytest.raises(ValueError, match="19 tokens: the model has positions for 18"):
        ROBERTA.ids(np.full((1, 19), 5), choose(1, 19, None))
    padded = np.full((2, 30), 1)
    padded[:, :18] = 5
    ROBERTA.ids(padded, choose(2, 30, None))
    padded[1, 18] = 5
    with pytest.raises(ValueError, match="19 tokens"):
        ROBERTA.ids(padded, choose(2, 30, None))


@pytest.mark.parametrize("wrong", [-1, 40, 2**40, -(2**62)])
def test_words_out_of_range(wrong):
    ids = np.array([[5, wrong, 7]])
    with pytest.raises(ValueError, match=f"input_ids holds {wrong}: the model has 0 to 39"):
        BERT.ids(ids, choose(1, 3, None))
    BERT.ids(ids, choose(1, 3, mask("101")))


def test_others_out_of_range():
    ids, tokens = np.array([[5, 6, 7]]), choose(1, 3, None)
    with pytest.raises(ValueError, match="token_type_ids holds 2: the model has 0 to 1"):
        BERT.ids(ids, tokens, np.array([[0, 2, 1]]))
    with pytest.raises(ValueError, match="position_ids holds -1: the model has 0 to 19"):
        BERT.ids(ids, tokens, None, np.array([[0, -1, 1]]))
    with pytest.raises(ValueError, match=r"token_type_ids \(1, 2\) does not fit"):
        BERT.ids(ids, tokens, np.array([[0, 1]]))


def test_long_batches():
    tokens = choose(90, 50, None)
    packed = tokens.packed(Lookup((40, 50, 2)).ids(np.full((90, 50), 5), tokens), None)
    assert packed.out.tolist() == list(range(4500))
    assert packed.ids[2].sum() == 0 and len(packed.ids[2]) == 4500
