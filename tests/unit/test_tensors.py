"""What is done to tensors everywhere: pieces, products, zeros to the bit."""

from __future__ import annotations

import pytest
import torch

from sentei import tensors
from sentei.tensors import (
    Scores,
    copy_kept_,
    count_zeros,
    product_,
    score_dtype,
    spans,
    zero_pruned_,
)

CPU = torch.device("cpu")
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16]
)


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (0, []),
        (4, [(0, 4)]),
        (5, [(0, 5)]),
        (12, [(0, 5), (5, 10), (10, 12)]),
    ],
)
def test_pieces_follow_one_another_to_the_end(monkeypatch, size, pieces):
    monkeypatch.setattr(tensors, "CHUNK", 5)
    assert list(spans(size, CPU)) == pieces


def test_other_devices_visit_a_tensor_whole(monkeypatch):
    monkeypatch.setattr(tensors, "CHUNK", 5)
    assert list(spans(12, torch.device("cuda"))) == [(0, 12)]
    assert list(spans(0, torch.device("cuda"))) == []


def test_scores_are_read_piece_by_piece(monkeypatch):
    monkeypatch.setattr(tensors, "CHUNK", 5)
    values = torch.arange(12.0)
    scores = Scores(12, CPU, lambda start, stop: values[start:stop])
    assert [(start, stop, piece.tolist()) for start, stop, piece in scores.pieces()] == [
        (start, stop, [float(i) for i in range(start, stop)])
        for start, stop in ((0, 5), (5, 10), (10, 12))
    ]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_scores_are_float32_at_least(dtype, expected):
    assert score_dtype(torch.ones(2, dtype=dtype)) == expected


def test_count_zeros():
    tensor = torch.tensor([[0.0, -0.0, 1e-45], [float("nan"), 1.0, 0.0]])
    assert count_zeros(tensor) == 3
    assert count_zeros(torch.nn.Parameter(torch.zeros(3, 4))) == 12
    assert count_zeros(torch.ones(0)) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_product_is_as_precise_as_where_it_is_written(dtype):
    """Both factors are near 2^-14, whose square half precision cannot hold."""
    a, b = torch.full((3,), 2.0**-14, dtype=dtype), torch.full((3,), -(2.0**-13), dtype=dtype)
    out = torch.full((3,), 9.0)
    assert product_(out, a, b) is out
    assert out.tolist() == [-(2.0**-27)] * 3
    assert a.tolist() == [2.0**-14] * 3 and b.tolist() == [-(2.0**-13)] * 3


def example(dtype=torch.float32):
    weight = torch.arange(1.0, 13.0, dtype=dtype).view(3, 4)
    keep = torch.arange(12).view(3, 4) % 3 != 0
    return weight, keep, torch.where(keep, weight, 0)


@DTYPES
@pytest.mark.parametrize("chunk", [1 << 18, 5])
def test_zeroes_exactly_what_is_pruned(monkeypatch, dtype, chunk):
    monkeypatch.setattr(tensors, "CHUNK", chunk)
    weight, keep, expected = example(dtype)
    for start, stop in spans(12, CPU):
        zero_pruned_(weight.view(-1)[start:stop], keep.view(-1)[start:stop])
    assert torch.equal(weight, expected)


@DTYPES
def test_even_a_weight_that_is_not_finite(dtype):
    values = [float("nan"), float("inf"), -1.0, float("nan")]
    weight = torch.tensor(values, dtype=dtype)
    keep = torch.tensor([False, False, False, True])
    copy = torch.full_like(weight, 9.0)
    copy_kept_(copy, weight, keep)
    zero_pruned_(weight, keep)
    for zeroed in (weight, copy):
        assert zeroed[:3].tolist() == [0, 0, 0] and zeroed[3].isnan()
        assert not torch.signbit(zeroed[:3]).any()


@DTYPES
def test_copies_what_is_kept_and_leaves_where_it_comes_from(dtype):
    dense, keep, expected = example(dtype)
    weight, before = torch.full_like(dense, 9.0), dense.clone()
    copy_kept_(weight, dense, keep)
    assert torch.equal(weight, expected) and torch.equal(dense, before)
