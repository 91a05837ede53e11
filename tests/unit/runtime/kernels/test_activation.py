"""GELU, ReLU and 2**x: how far they are from what they stand for."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers.guarded import guarded
from helpers.kernels import CPUS, load_apart, targets
from sentei.runtime.ir import INDEX, POINTER, Function
from sentei.runtime.kernels import activation
from sentei.runtime.kernels.kernel import FLOATS, GRANULE

EXACT = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}
EVERYWHERE = np.concatenate(
    [
        np.linspace(-20, 20, 200_000),
        *(s * np.logspace(-38, 30, 2000) for s in (1, -1)),
        [0.0, -0.0] * 8,
    ]
).astype(np.float32)


def apply(cpu: str, name: str, write, values: np.ndarray) -> np.ndarray:
    """What a function of vectors makes of values, whose number granules divide."""
    f = Function(name, (("values", POINTER), ("count", INDEX)))
    place, count = f.parameters
    with f.loop(0, count, GRANULE) as loop:
        here = place.at(loop.index * 4)
        here.store(write(f, here.load(FLOATS, 0, 4)), 0, 4)
    address = load_apart([f], targets()[cpu])[name]
    assert len(values) % GRANULE == 0
    result = guarded(values)
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)
    run(result.ctypes.data, len(values))
    return result


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "polynomial"])
@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("cpu", CPUS)
def test_error(cpu, kind, exact):
    found = apply(
        cpu,
        f"{kind}_{exact}",
        lambda f, x: activation.apply(f, x, kind, exact=exact),
        EVERYWHERE,
    )
    expected = EXACT[kind](torch.from_numpy(EVERYWHERE).double()).numpy()
    error = np.abs(found.astype(np.float64) - expected)
    bound = 0 if kind == "relu" else 4e-7 if exact else 1.01e-4
    assert (error - bound - np.abs(expected) * 2e-7).max() <= 0


@pytest.mark.parametrize("degree, bound", [(3, 1.6e-4), (6, 3e-7)])
@pytest.mark.parametrize("cpu", CPUS)
def test_powers_of_two(cpu, degree, bound):
    values = np.linspace(-126, 1, 160_000).astype(np.float32)
    values = np.concatenate([values, [0, -0.5, -1, -125.5] * 4]).astype(np.float32)
    found = apply(cpu, f"exp2_{degree}", lambda f, x: activation.exp2(f, x, degree), values).astype(
        np.float64
    )
    assert (np.abs(found / np.exp2(values.astype(np.float64)) - 1) <= bound).all()


@pytest.mark.parametrize("cpu", CPUS)
def test_powers_far_below_are_nothing(cpu):
    values = -np.logspace(2.2, 38, 160).astype(np.float32)
    values[-1] = -np.inf
    for degree in (3, 6):
        found = apply(cpu, f"exp2_{degree}", lambda f, x: activation.exp2(f, x, degree), values)  # noqa: B023
        assert (found >= 0).all() and (found < 1.3e-38).all()
