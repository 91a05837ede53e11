"""Products: every form, beside numpy, on memory that ends where a forbidden page begins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.guarded import SIDES, guarded
from helpers.kernels import FORMS, bf16, call, from_bf16, in_pairs, out_of_pairs, targets
from sentei.runtime.kernels.kernel import WIDTHS, Slot, quad_order
from sentei.runtime.kernels.product import BLOCK, Form, build
from sentei.runtime.layout import Runs, pack, quantised

LAYOUTS = ((1, False), (4, False), (BLOCK, True))
"""Outputs of a run, and whether they share their inputs."""

STORES = ("float", "half", "pairs")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
EPILOGUES = [
    *[(activation, False, store) for activation in ("", *ACTIVATIONS) for store in STORES],
    ("", True, "float"),
]


def matrix(outputs: int, inputs: int, density: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(outputs, inputs)) * (rng.random((outputs, inputs)) < density)
    return weight.astype(np.float32)


def activated(x: np.ndarray, activation: str) -> np.ndarray:
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "gelu":
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    if activation == "gelu_tanh":
        return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x


class Case:
    """A product of a panel, as the kernel gets it and as numpy computes it."""

    def __init__(self, cpu: str, form: Form, weight: np.ndarray, side: str = "end") -> None:
        self.target, self.form, self.weight = targets()[cpu], form, weight
        rng = np.random.default_rng(1)
        self.bias = rng.normal(size=len(weight)).astype(np.float32)
        self.x = rng.normal(size=(weight.shape[1], form.width)).astype(np.float32)
        self.rows = -(-len(weight) // form.outputs) * form.outputs
        self.residual = rng.normal(size=(self.rows, form.width)).astype(np.float32)
        self.scale = (np.abs(self.x).max(0, initial=1e-30) / 127).astype(np.float32)
        self.side = side

    def input(self) -> np.ndarray:
        if self.form.precision == "fp32":
            return self.x
        if self.form.precision == "bf16":
            return in_pairs(bf16(self.x))
        return self.bytes()[:, quad_order(self.form.width)]

    def bytes(self) -> np.ndarray:
        return (np.rint(self.x / self.scale) + 128).astype(np.uint8)

    def run(self, parts: int = 1, *, in_place: bool = False) -> np.ndarray:
        form, side = self.form, self.side
        runs = pack(self.weight, self.bias, form.precision, form.outputs, shared=form.shared)
        runs = guard(runs, side)
        dtype = np.float32 if form.store == "float" else np.uint16
        out = guarded(np.full((self.rows, form.width), 7, dtype), side)
        residual = guarded(self.residual, side)
        buffers = {
            Slot.INPUT: [guarded(self.input(), side)],
            Slot.STREAM: [residual],
            Slot.SUM: [residual if in_place else out],
            Slot.SCALE: [guarded(self.scale, side)],
        }
        words = [runs.groups.ctypes.data, runs.starts.ctypes.data, runs.facts.ctypes.data]
        words += [runs.runs, runs.pieces, Slot.INPUT, Slot.SUM, Slot.STREAM, Slot.SCALE]
        call(build(form, self.target), self.target, words, buffers, parts=parts)
        result = residual if in_place else out
        result = result[: len(self.weight)]
        if form.store == "float":
            return result
        return from_bf16(out_of_pairs(result) if form.store == "pairs" else result)

    def expected(self) -> np.ndarray:
        weight, x = self.weight.astype(np.float64), self.x.astype(np.float64)
        if self.form.precision == "bf16":
            weight = from_bf16(bf16(self.weight)).astype(np.float64)
            x = from_bf16(bf16(self.x)).astype(np.float64)
        elif self.form.precision == "int8":
            numbers, scale = quantised(self.weight)
            weight = numbers * scale[:, None].astype(np.float64)
            x = (self.bytes().astype(np.float64) - 128) * self.scale
        total = activated(weight @ x + self.bias[:, None], self.form.activation)
        return total + self.residual[: len(total)] * self.form.residual

    def check(self, result: np.ndarray) -> None:
        largest = np.abs(self.weight) @ np.abs(self.x) + np.abs(self.bias)[:, None] + 1
        error = np.abs(result - self.expected())
        allowed = 2e-6 * largest
        if self.form.store != "float":
            allowed = allowed + np.abs(self.expected()) / 256 + 3e-4 * bool(self.form.activation)
        assert np.isfinite(result).all()
        assert (error <= allowed).all(), (error - allowed).max()


def guard(runs: Runs, side: str) -> Runs:
    """A matrix whose packed parts are guarded."""
    arrays = (guarded(one, side) for one in (runs.groups, runs.starts, runs.facts))
    return Runs(runs.precision, runs.outputs, runs.shared, runs.pieces, *arrays)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_every_epilogue(cpu, precision, layout, width):
    weight = matrix(12, 37, 0.4)
    for activation, residual, store in EPILOGUES:
        if precision == "fp32" and store != "float":
            continue
        form = Form(precision, *layout, width, activation, residual, store)
        case = Case(cpu, form, weight)
        case.check(case.run())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_densities_and_sizes(cpu, precision, layout, width):
    form = Form(precision, *layout, width)
    for number, density in enumerate((0, 0.05, 0.5, 1)):
        for outputs, inputs in [(4, 1), (8, 16), (28, 5), (12, 130), (4, 1027)]:
            for side in SIDES:
                case = Case(cpu, form, matrix(outputs, inputs, density, number), side)
                case.check(case.run())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_outputs_that_fill_no_run(cpu, precision, layout):
    for width in WIDTHS:
        for outputs in (1, 3, 7, 33):
            case = Case(cpu, Form(precision, *layout, width), matrix(outputs, 19, 0.5))
            case.check(case.run())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_rows_without_weight_are_their_bias(cpu, precision, layout):
    weight = matrix(16, 40, 0.3)
    weight[4:8] = weight[13] = weight[15] = 0
    case = Case(cpu, Form(precision, *layout, 32), weight)
    result = case.run()
    case.check(result)
    for row in (4, 5, 6, 7, 13, 15):
        assert (result[row] == case.bias[row]).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_every_number_of_weights_in_a_row(cpu, precision, layout):
    """Of all remainders of groups, and of the sets that take turns."""
    weight = np.tril(np.abs(matrix(40, 40, 1)) + 0.1)
    weight = np.repeat(weight, layout[0], axis=0)
    for width in WIDTHS:
        case = Case(cpu, Form(precision, *layout, width), weight)
        case.check(case.run())


@pytest.mark.parametrize("parts", [2, 3, 5, 40])
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_parts_are_the_whole(cpu, precision, parts):
    for layout in LAYOUTS:
        case = Case(cpu, Form(precision, *layout, 64, "", True), matrix(28, 50, 0.3))
        assert (case.run(parts) == case.run()).all()


@pytest.mark.parametrize("cpu, precision", FORMS)
def test_the_residual_may_be_where_the_sum_goes(cpu, precision):
    for layout in LAYOUTS:
        case = Case(cpu, Form(precision, *layout, 64, "", True), matrix(28, 50, 0.3))
        assert (case.run(in_place=True) == case.run()).all()


@pytest.mark.parametrize("cpu, precision", FORMS)
def test_the_most_inputs(cpu, precision):
    weight = np.zeros((4, 8191), np.float32)
    weight[:, [0, 5, 8190]] = matrix(4, 3, 1)
    weight[1] = matrix(1, 8191, 1)
    for layout in LAYOUTS:
        for width in (16, 64):
            case = Case(cpu, Form(precision, *layout, width), weight)
            case.check(case.run())
