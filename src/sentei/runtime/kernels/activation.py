"""GELU, ReLU and 2**x on vectors.

GELU is max(x, 0) - g(|x|) with g(u) = u * (1 - Phi(u)), a bump that is gone at 5. Where what
follows is rounded to bf16 or int8, g is one polynomial on [0, 3.89], and its value there from there
on: 12 operations, no division, no exponential; the largest error is 1.0e-4 (a test holds that), the
least that this degree can have, and an eightieth of a step of bf16 near 1. In fp32 g comes from an
exponential and a division (Abramowitz and Stegun 7.1.26, error 1.5e-7 of erf).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Final

import numpy as np

from sentei.runtime.ir import Function, Value
from sentei.runtime.kernels.kernel import FLOATS, INTEGERS, splat

_END: Final = 3.89
"""Where the polynomial for GELU is as far from g as g then is from 0."""

_DEGREE: Final = 8
_MAGIC: Final = 12582912.0
"""1.5 * 2**23: adding it leaves the nearest integer in the low bits of the mantissa."""

_ERF: Final = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_P: Final = 0.3275911


@cache
def exp2_coefficients(degree: int) -> tuple[float, ...]:
    """Of the polynomial for 2**x on [-1/2, 1/2], lowest first."""
    fit = np.polynomial.chebyshev.Chebyshev.interpolate(np.exp2, degree, [-0.5, 0.5])
    return tuple(fit.convert(kind=np.polynomial.Polynomial).coef)


def exp2(f: Function, x: Value, degree: int) -> Value:
    """2**x of values that are not above 0 by much; 0 far below."""
    x = f.maximum(x, splat(f, -126.0))
    shifted = x + _MAGIC
    rest = x - (shifted - _MAGIC)
    power = shifted.as_bits(INTEGERS) << 23
    coefficients = exp2_coefficients(degree)
    result = polynomial(f, rest, coefficients)
    return (result.as_bits(INTEGERS) + power).as_bits(FLOATS)


def polynomial(f: Function, x: Value, coefficients: tuple[float, ...]) -> Value:
    """By Horner's rule, lowest coefficient first."""
    result = splat(f, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = f.fma(result, x, splat(f, coefficient))
    return result


def _tail(u: Any, kind: str) -> Any:
    """What g is exactly."""
    if kind == "gelu":
        return u * 0.5 * np.vectorize(math.erfc, otypes=[float])(u / math.sqrt(2))
    inner = math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)
    return u * 0.5 * (1 - np.tanh(inner))


@cache
def tail_coefficients(kind: str) -> tuple[float, ...]:
    """Of the polynomial for g in (u - END / 2), lowest first: its largest error is the least.

    By Lawson's iteration: least squares, each time weighted by the errors of the time before.
    """
    half = _END / 2
    nodes = half * np.cos(np.linspace(0, math.pi, 401))
    powers = np.vander(nodes, _DEGREE + 1, increasing=True)
    exact = _tail(nodes + half, kind)
    weight = np.ones_like(exact)
    for _ in range(100):
        root = np.sqrt(weight)
        fit, *_ = np.linalg.lstsq(powers * root[:, None], exact * root, rcond=None)
        weight *= np.abs(powers @ fit - exact)
        weight /= weight.sum()
    return tuple(float(one) for one in fit)


def apply(f: Function, x: Value, activation: str, *, exact: bool) -> Value:
    """An activation of a vector."""
    positive = f.maximum(x, splat(f, 0.0))
    if activation == "relu":
        return positive
    u = f.absolute(x)
    if not exact:
        u = f.minimum(u, splat(f, _END))
        return positive - polynomial(f, u - _END / 2, tail_coefficients(activation))
    if activation == "gelu":
        return positive - _exact_tail(f, u)
    inner = f.fma(u * u, splat(f, 0.044715), splat(f, 1.0)) * u
    e = exp2(f, inner * (-2 * math.sqrt(2 / math.pi) / math.log(2)), 6)
    return positive - u * e / (e + 1.0)


def _exact_tail(f: Function, u: Value) -> Value:
    t = splat(f, 1.0) / f.fma(u, splat(f, _ERF_P / math.sqrt(2)), splat(f, 1.0))
    e = exp2(f, u * u * (-0.5 / math.log(2)), 6)
    return u * (t * polynomial(f, t, tuple(0.5 * one for one in _ERF)) * e)
