"""A tensor packed and decoded: every dtype, kind, coding, shape and density."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sentei.pack import codings, encode
from sentei.pack.encoding import choose_coding
from sentei.pack.format import from_bytes, to_bytes
from sentei.pack.values import BYTES, FLOATS, from_float32, to_float32

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "format.md"
CODINGS = ("dense", "bitmask", "gaps")
STEP = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""Largest error of rounding to a kind, relative, for its normal numbers."""

SMALLEST = {"fp32": 2.0**-149, "fp16": 2.0**-24, "bf16": 2.0**-133}
LARGEST = {"fp64": 1.7e308, "fp32": 3.4028234e38, "fp16": 65504.0, "bf16": 3.3895e38}

thorough = settings(derandomize=True, deadline=None, database=None, max_examples=200)


@st.composite
def tensors(draw, *, finite=False):
    """A dtype, and an array of it: any bits or what weights are like, any shape, any density."""
    dtype = draw(st.sampled_from(sorted(FLOATS)))
    shape = draw(
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9)
        | st.sampled_from([(1, 3000), (3000, 1), (7, 300), (5000,)])
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        size = BYTES[dtype]
        array = rng.integers(0, 2 ** (8 * size), shape, f"u{size}")
        array = np.asarray(array).view(FLOATS[dtype])
    else:
        array = narrow(np.asarray(0.05 * rng.standard_normal(shape), np.float32), dtype)
    array = np.where(rng.random(shape) < draw(st.sampled_from([0, 0.003, 0.1, 0.5, 1])), array, 0)
    array = np.asarray(array, FLOATS[dtype])
    if finite:
        array = np.where(np.isfinite(numbers(array, dtype)), array, 0).astype(FLOATS[dtype])
    return dtype, array


@st.composite
def piece(draw):
    """Entries that are worked on at a time; few, so that small tensors have several pieces."""
    return draw(st.sampled_from([8, 64, codings.PIECE]))


def narrow(wide, dtype):
    if dtype == "bf16":
        return (wide.view(np.uint32) >> 16).astype(np.uint16)
    return wide.astype(FLOATS[dtype])


def numbers(array, dtype):
    """As float64."""
    with np.errstate(invalid="ignore"):
        return array if dtype == "fp64" else to_float32(array, dtype).astype(np.float64)


def bits(array):
    return array.view(f"u{array.itemsize}")


def packed(array, entries=codings.PIECE, **options):
    """Packed, as bytes, and out of these again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codings, "PIECE", entries)
        made = encode("w", array, **options)
        again = from_bytes("w", to_bytes(made))
        return again, again.decode(), again.nonzero()


@given(tensors(), st.sampled_from(CODINGS), st.booleans(), piece())
@thorough
def test_what_is_not_rounded_comes_back_bit_for_bit(tensor, coding, compress, entries):
    dtype, array = tensor
    options = {"dtype": dtype, "kind": "fp64", "coding": coding, "compress": compress}
    found, decoded, (positions, kept) = packed(array, entries, **options)
    assert (found.dtype, found.values, found.coding) == (dtype, dtype, coding)
    assert decoded.dtype == array.dtype and decoded.shape == array.shape == found.shape
    assert np.array_equal(bits(decoded), bits(array))
    there = np.arange(array.size) if coding == "dense" else np.flatnonzero(bits(array))
    assert np.array_equal(positions, there) and found.nonzeros == len(there)
    assert np.array_equal(bits(kept), bits(array).reshape(-1)[there])
    old = np.full_like(array, 1)
    assert found.decode(old) is old and np.array_equal(bits(old), bits(array))


@given(tensors(), st.sampled_from(sorted(STEP)), st.sampled_from(CODINGS), piece())
@thorough
def test_floats_are_off_by_half_a_step_and_zeros_are_the_same(tensor, kind, coding, entries):
    dtype, array = tensor
    before = numbers(array, dtype)
    large = np.isfinite(before) & (np.abs(before) > LARGEST[kind] * (1 + STEP[kind]))
    if BYTES[kind] < BYTES[dtype] and large.any():
        with pytest.raises(ValueError, match=f"^w: it holds a number that is too large for {kind}"):
            encode("w", array, dtype=dtype, kind=kind, coding=coding)
        return
    found, decoded, _ = packed(array, entries, dtype=dtype, kind=kind, coding=coding)
    after = numbers(decoded, dtype)
    assert np.array_equal(after == 0, before == 0)
    assert np.array_equal(np.isnan(after), np.isnan(before))
    infinite = np.isinf(before)
    assert np.array_equal(after[infinite], before[infinite])
    finite = np.isfinite(before)
    if BYTES[kind] < BYTES[dtype]:
        assert found.values == kind
        most = np.maximum(1.001 * STEP[kind] * np.abs(before[finite]), SMALLEST[kind])
        assert (np.abs(after - before)[finite] <= most).all()
    else:
        assert found.values == dtype and np.array_equal(bits(decoded), bits(array))


@given(tensors(finite=True), st.sampled_from(CODINGS), piece())
@thorough
def test_int8_is_off_by_half_a_scale_and_zeros_are_the_same(tensor, coding, entries):
    dtype, array = tensor
    rows = array.shape[0] if array.ndim else 1
    before = numbers(array, dtype).reshape(rows, array.size // max(rows, 1))
    largest = np.abs(before).max(axis=1, initial=0)
    if (largest > 0.989 * min(LARGEST[dtype], LARGEST["fp32"])).any():
        with pytest.raises(
            ValueError, match=r"^w: (int8 has no NaN|it holds a number that is too)"
        ):
            encode("w", array, dtype=dtype, kind="int8", coding=coding)
        return
    found, decoded, _ = packed(array, entries, dtype=dtype, kind="int8", coding=coding)
    after = numbers(decoded, dtype).reshape(before.shape)
    assert found.values == "int8"
    smallest = SMALLEST["fp16" if dtype == "fp16" else "bf16"]
    scale = np.maximum(largest / 127 * (1 + 2**-7), smallest)[:, None]
    rounding = STEP["bf16"] * np.abs(after) + smallest / 2
    most = np.where(np.abs(before) < scale / 2, scale, scale / 2) + rounding
    assert (np.abs(after - before) <= most).all()
    assert np.array_equal(np.sign(after), np.sign(before))


@pytest.mark.parametrize("kind", ["fp64", "fp32", "fp16", "bf16"])
def test_what_is_not_finite_is_refused_in_int8(kind):
    for value in (np.nan, np.inf, -np.inf):
        array = narrow(np.array([[1, 0, value]], np.float32), kind)
        with pytest.raises(ValueError, match=r"^w: .*; write its values as another kind$"):
            encode("w", array, dtype=kind, kind="int8")


# --------------------------------------------------------------------------------------- the page


def reader():
    """The functions of the page's own reader."""
    [block] = re.findall(r"^<!-- runnable -->\n```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    names = {}
    exec(block, names)
    return names["read"]


CASES = [
    (dtype, kind, coding, compress)
    for dtype in FLOATS
    for kind in dict.fromkeys([dtype, *STEP, "int8"])
    for coding in CODINGS
    for compress in (True, False)
    if kind == dtype or BYTES[kind] < BYTES[dtype]
]


@pytest.mark.parametrize(("dtype", "kind", "coding", "compress"), CASES)
def test_the_reader_of_the_page_reads_every_form(dtype, kind, coding, compress):
    rng = np.random.default_rng(0)
    wide = np.where(rng.random((3, 5, 400)) < 0.05, rng.standard_normal((3, 5, 400)), 0)
    wide[1, :, 7:] = 0  # more than 255 pruned entries on end
    array = narrow(wide.astype(np.float32), dtype)
    made = encode("w", array, dtype=dtype, kind=kind, coding=coding, compress=compress)
    shape, flat = reader()("w", to_bytes(made).tobytes())
    expected = numbers(made.decode(), dtype)
    assert shape == [3, 5, 400]
    found = np.array(flat)
    if dtype in ("fp16", "bf16"):  # the page leaves the last rounding to the reader's own types
        found = numbers(from_float32(found.astype(np.float32), dtype), dtype)
    assert np.array_equal(found.reshape(shape), expected)


def test_the_reader_of_the_page_refuses_damage():
    record = bytearray(to_bytes(encode("w", np.eye(9, dtype=np.float32))).tobytes())
    record[-1] ^= 1
    with pytest.raises(ValueError, match="w is damaged"):
        reader()("w", bytes(record))


# ------------------------------------------------------------------------------------ what is said


def test_the_bytes_are_what_the_page_says():
    """By hand: a change of the format must change the version."""
    array = np.zeros((2, 200), np.float32)
    array[0, 3], array[1, 100], array[1, 101] = 1.0, -2.0, 0.5
    made = encode("w", array, kind="bf16", coding="gaps", compress=False)
    header = (
        b'{"name":"w","dtype":"fp32","shape":[2,200],"coding":"gaps","values":"bf16",'
        b'"nonzeros":3,"parts":[[4,4],[3,3],[3,3]]}'
    )
    parts = bytes([3, 255, 41, 0]) + bytes([0x80, 0x00, 0x00]) + bytes([0x3F, 0xC0, 0x3F])
    tail = len(header).to_bytes(4, "little") + header + parts
    whole = b"sentei\1\0" + hashlib.sha256(tail).digest() + tail
    assert to_bytes(made).tobytes() == whole
    made = encode("w", array, kind="int8", coding="bitmask", compress=False)
    mask = bytearray(50)
    mask[0], mask[37] = 1 << 3, 0b110000  # entries 3, and 300 and 301
    scales = bytes([0x02, 0x3C, 0x82, 0x3C])
    assert [part.stored.tobytes() for part in made.parts] == [mask, scales, bytes([126, 130, 32])]


@pytest.mark.parametrize("compress", [True, False], ids=["zstd", "plain"])
@pytest.mark.parametrize("kept", [0.01, 0.1, 0.15, 0.25, 0.5, 0.85])
def test_the_smaller_coding_is_chosen(kept, compress):
    rng = np.random.default_rng(0)
    array = rng.standard_normal((300, 400)).astype(np.float32)
    array *= rng.random(array.shape) < kept
    array += 0.0
    sizes = {
        coding: encode("w", array, coding=coding, compress=compress).nbytes for coding in CODINGS
    }
    assert choose_coding(array, compress=compress) == min(sizes, key=sizes.get)
    assert encode("w", array, compress=compress).nbytes == min(sizes.values())


def test_what_is_hardly_sparse_is_dense():
    array = np.ones((30, 40), np.float32)
    assert choose_coding(array) == "dense"
    array[:2] = 0
    assert choose_coding(array) == "dense"
    array[:4] = 0
    assert choose_coding(array) == "bitmask"


def test_negative_zeros_are_kept_only_where_all_is_exact():
    array = np.zeros((4, 50), np.float32)
    array[1, 3], array[2, 4] = -0.0, 1.5
    exact, rounded = (encode("w", array, kind=kind, coding="gaps") for kind in ("fp32", "bf16"))
    assert (exact.nonzeros, rounded.nonzeros) == (2, 1)
    assert np.signbit(exact.decode()[1, 3]) and not np.signbit(rounded.decode()[1, 3])


def test_without_zstandard_the_fix_is_named(monkeypatch):
    array = np.eye(300, dtype=np.float32)
    made = encode("layer.weight", array)
    assert made.nbytes < encode("layer.weight", array, compress=False).nbytes
    monkeypatch.setitem(sys.modules, "zstandard", None)
    plain = encode("layer.weight", array, compress=False)
    assert np.array_equal(plain.decode(), array)
    fix = r"zstandard is needed: pip install 'sentei\[pack\]'"
    with pytest.raises(ModuleNotFoundError, match=fix):
        encode("layer.weight", array)
    with pytest.raises(ModuleNotFoundError, match=f"to read layer.weight, .*{fix}"):
        made.decode()
