"""LayerNorm, what products read of it, and conversions, beside torch."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers.guarded import SIDES, guarded, zeros
from helpers.kernels import FORMS, bf16, call, from_bf16, out_of_pairs, targets
from sentei.runtime.kernels import convert, norm
from sentei.runtime.kernels.kernel import WIDTHS, Slot, quad_order

EMITS = {"fp32": "none", "bf16": "half", "int8": "int8"}
SIZES = (16, 20, 36, 100, 768)


def values(features: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(features + width)
    x = rng.normal(size=(features, width)) * rng.uniform(0.01, 30, width) + rng.normal(size=width)
    x[:, 3] = 0
    x[:, 5] = 7.5
    return x.astype(np.float32)


def check_emitted(emit: str, floats: np.ndarray, found: np.ndarray, scale: np.ndarray) -> None:
    """What products read stands for the floats, to half a step."""
    if emit == "half":
        assert (out_of_pairs(found) == bf16(floats)).all()
    elif emit == "int8":
        np.testing.assert_allclose(scale, np.maximum(np.abs(floats).max(0), 1e-30) / 127, rtol=1e-6)
        numbers = np.empty_like(found)
        numbers[:, quad_order(found.shape[1])] = found
        error = np.abs((numbers.astype(np.float64) - 128) * scale - floats)
        assert (error <= 0.5001 * scale).all()


def buffers(emit: str, features: int, width: int, side: str) -> dict[Slot, list[np.ndarray]]:
    dtype = np.uint8 if emit == "int8" else np.uint16
    made = {}
    if emit != "none":
        made[Slot.INPUT] = [zeros((features, width), dtype, side)]
    if emit == "int8":
        made[Slot.SCALE] = [zeros(width, side=side)]
    return made


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_norm(cpu, precision, side):
    target, emit = targets()[cpu], EMITS[precision]
    for width in WIDTHS:
        for features in SIZES:
            x = values(features, width)
            rng = np.random.default_rng(0)
            weights = rng.normal(size=(features, 2)).astype(np.float32)
            given = guarded(weights, side)
            slots = buffers(emit, features, width, side)
            slots[Slot.SUM] = [guarded(x, side)]
            slots[Slot.STREAM] = [zeros((features, width), side=side)]
            floats = [struct.unpack("<q", struct.pack("<fi", number, 0))[0] for number in
                      (1e-5, 1 / features)]  # fmt: skip
            words = [features, Slot.SUM, Slot.STREAM, Slot.INPUT, Slot.SCALE]
            words += [given.ctypes.data, *floats]
            call(norm.build(emit, width, target), target, words, slots)
            (found,) = slots[Slot.STREAM]
            tensor = torch.from_numpy(x.T.copy()).double()
            scale, shift = torch.from_numpy(weights.T.copy()).double()
            expected = F.layer_norm(tensor, (features,), scale, shift, 1e-5).T.numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
            if emit != "none":
                scale = slots.get(Slot.SCALE, [None])[0]
                check_emitted(emit, found, slots[Slot.INPUT][0], scale)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("source", ["float", "half"])
@pytest.mark.parametrize("cpu, precision", [one for one in FORMS if one[1] != "fp32"])
def test_convert(cpu, precision, source, side):
    target, emit = targets()[cpu], EMITS[precision]
    for width in WIDTHS:
        for features, parts in [(1, 1), (3, 1), (16, 3), (37, 2), (768, 5)]:
            x = values(features, width)
            if source == "half":
                x = from_bf16(bf16(x))
            slots = buffers(emit, features, width, side)
            slots[Slot.CONTEXT] = [guarded(bf16(x) if source == "half" else x, side)]
            words = [features, Slot.CONTEXT, Slot.INPUT, Slot.SCALE]
            function = convert.build(source, emit, width, target)
            call(function, target, words, slots, parts=parts)
            scale = slots.get(Slot.SCALE, [None])[0]
            check_emitted(emit, x, slots[Slot.INPUT][0], scale)


@pytest.mark.parametrize("cpu, precision", [one for one in FORMS if one[1] == "int8"])
def test_bytes_of_extreme_tokens(cpu, precision):
    """Every token has its own scale, from 1e-30 on; nothing wraps around."""
    target = targets()[cpu]
    width = 64
    x = np.zeros((4, width), np.float32)
    x[:, :40] = 10.0 ** np.arange(-2, 38)
    x[1] *= -1
    x[2] *= 0.004
    x[:, 40] = 3e38
    x[:, 41] = 1e-38
    slots = buffers("int8", 4, width, "end")
    slots[Slot.CONTEXT] = [guarded(x)]
    words = [4, Slot.CONTEXT, Slot.INPUT, Slot.SCALE]
    call(convert.build("float", "int8", width, target), target, words, slots)
    check_emitted("int8", x, slots[Slot.INPUT][0], slots[Slot.SCALE][0])
