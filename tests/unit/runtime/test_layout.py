"""Packed weights: unpacked here, they are the matrix."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.kernels import bf16, from_bf16, int8
from sentei.runtime import layout
from sentei.runtime.kernels.product import BLOCK, GROUP, TILE
from sentei.runtime.layout import Runs, pack
from sentei.runtime.nonzeros import Nonzeros

DTYPES = {"fp32": np.float32, "bf16": np.uint16, "int8": np.int8}
LAYOUTS = ((1, False), (4, False), (BLOCK, True))
PIECES = (None, 8, 24)


def unpack(runs: Runs, inputs: int) -> np.ndarray:
    """The numbers as they are stored, (outputs, inputs); each slot may stand once."""
    size = GROUP[runs.precision]
    outputs = len(runs.facts) // runs.pieces
    result = np.zeros((outputs, inputs), DTYPES[runs.precision])
    for run in range(len(runs.starts) - 1):
        for group in runs.groups[runs.starts[run] : runs.starts[run + 1]]:
            for output in range(runs.outputs):
                row = runs.facts["row"][run * runs.outputs + output]
                own = 0 if runs.shared else output * (4 + 2 * size)
                place = own + 4 * output * runs.shared
                numbers = group[place : place + 4].view(result.dtype)
                place = 4 * runs.outputs if runs.shared else own + 4
                columns = group[place : place + 2 * size].view(np.uint16)
                assert (columns % 8 == 0).all()
                for column, number in zip(columns // 8, numbers, strict=True):
                    assert not number or not result[row, column]
                    result[row, column] = number if number else result[row, column]
    return result


matrices = st.builds(
    lambda outputs, inputs, density, seed: (
        (
            np.random.default_rng(seed).normal(size=(outputs, inputs))
            * (np.random.default_rng(seed + 1).random((outputs, inputs)) < density)
            + 0.0  # no zero has a sign
        ).astype(np.float32)
    ),
    st.integers(1, 70),
    st.integers(1, 40),
    st.sampled_from([0, 0.05, 0.3, 1]),
    st.integers(0, 1000),
)


@settings(derandomize=True, max_examples=6, deadline=None, database=None)
@given(weight=matrices)
@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("outputs, shared", LAYOUTS)
@pytest.mark.parametrize("precision", DTYPES)
def test_unpacked_it_is_the_matrix(precision, outputs, shared, piece, weight):
    bias = np.arange(len(weight), dtype=np.float32)
    runs = pack(Nonzeros.of(weight), bias, precision, outputs, shared=shared, piece=piece)
    numbers, scale = weight, np.ones(len(weight), np.float32)
    if precision == "bf16":
        numbers = bf16(weight)
    elif precision == "int8":
        numbers, scale = int8(weight)
    found = unpack(runs, weight.shape[1])
    assert (found[: len(weight)] == numbers).all() and not found[len(weight) :].any()
    multiple = outputs if piece is None else TILE
    rows = runs.facts["row"]
    every = np.arange(-(-len(weight) // multiple) * multiple)
    assert (np.sort(rows) == np.repeat(every, runs.pieces)).all()
    real = rows < len(weight)
    assert (runs.facts["bias"][real] == bias[rows[real]]).all()
    assert (runs.facts["scale"][real] == scale[rows[real]]).all()
    assert runs.starts[0] == 0 and runs.starts[-1] == len(runs.groups)
    lengths = np.diff(runs.starts)
    if runs.pieces > 1:
        check_pieces(runs, piece)
        lengths = lengths.reshape(-1, TILE // outputs)
    assert (np.diff(lengths) <= 0).all()


def check_pieces(runs: Runs, piece: int) -> None:
    """In a tile's piece are the tile's outputs, and the piece's inputs."""
    rows = runs.facts["row"].reshape(-1, runs.pieces, TILE)
    assert (np.sort(rows) == np.arange(rows.size // runs.pieces).reshape(-1, 1, TILE)).all()
    size = GROUP[runs.precision]
    per = TILE // runs.outputs
    for run in range(len(runs.starts) - 1):
        number = run // per % runs.pieces
        for group in runs.groups[runs.starts[run] : runs.starts[run + 1]]:
            bytes_ = group[4 * runs.outputs :] if runs.shared else group.reshape(runs.outputs, -1)
            inputs = bytes_[..., -2 * size :].copy().view(np.uint16) // 8
            assert (inputs // piece == number).all()


def test_a_matrix_without_weight():
    nothing = Nonzeros.of(np.zeros((8, 5), np.float32))
    for precision in DTYPES:
        for outputs, shared in LAYOUTS:
            runs = pack(nothing, np.ones(8, np.float32), precision, outputs, shared=shared)
            assert not len(runs.groups) and not runs.starts.any() and runs.runs == 8 // outputs


def test_int8_rows():
    weight = np.array([[1, -2, 0.5], [0, 0, 0], [1e-44, 0, 3e-44], [3e38, -3e38, 1]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numbers, scale = int8(weight)
    assert numbers.tolist() == [[64, -127, 32], [0, 0, 0], [0, 0, 0], [127, -127, 0]]
    assert np.isfinite(scale).all() and (scale > 0).all()
    error = np.abs(numbers * scale[:, None].astype(np.float64) - weight)
    assert (error <= 0.5001 * scale[:, None]).all()


def test_bf16_ties_to_even():
    values = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -0.0, 65504], np.float32)
    rounded = from_bf16(layout.bf16(values))
    assert rounded.tolist() == [1, 1, 1 + 2**-6, 1 + 2**-7, 0, 65536]
