"""Products: every form, beside numpy, on memory that ends where a forbidden page begins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.guarded import SIDES, guarded, zeros
from helpers.kernels import FORMS, bf16, call, from_bf16, in_pairs, int8, out_of_pairs, targets
from sentei.runtime.kernels.kernel import WIDTHS, Slot, quad_order
from sentei.runtime.kernels.product import BLOCK, TILE, Form, build
from sentei.runtime.layout import Runs, pack
from sentei.runtime.nonzeros import Nonzeros

LAYOUTS = (
    (1, False, None),
    (4, False, None),
    (BLOCK, True, None),
    (1, False, 8),
    (4, False, 16),
    (BLOCK, True, 24),
)
"""Outputs of a run, whether they share their inputs, and how many of these are taken at a time."""

IDS = ("row", "rows", "blocks", "row-pieces", "rows-pieces", "blocks-pieces")
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)

STORES = ("float", "half", "pairs")
ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
EPILOGUES = [
    *[(activation, False, store) for activation in ("", *ACTIVATIONS) for store in STORES],
    ("", True, "float"),
]
FEW = [("", True, "float"), ("gelu", False, "pairs"), ("gelu", False, "half")]


def matrix(outputs: int, inputs: int, density: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(outputs, inputs)) * (rng.random((outputs, inputs)) < density)
    return weight.astype(np.float32)


def epilogues(cpu: str, precision: str, piece: int | None, width: int) -> list[tuple]:
    """Those that programs have, and of forms that others are like only some."""
    some = EPILOGUES if piece is None and cpu != "vnni" and width == 32 else FEW
    stores = {"fp32": ("float",), "bf16": STORES, "int8": ("float", "half")}[precision]
    return [one for one in some if one[2] in stores]


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

    def __init__(
        self,
        cpu: str,
        precision: str,
        layout: tuple[int, bool, int | None],
        width: int,
        weight: np.ndarray,
        epilogue: tuple[str, bool, str] = ("", False, "float"),
        side: str = "end",
    ) -> None:
        outputs, shared, piece = layout
        self.target, self.weight, self.piece, self.side = targets()[cpu], weight, piece, side
        pieces = piece is not None and piece < weight.shape[1]
        self.form = Form(precision, outputs, shared, width, *epilogue, pieces=pieces)
        form = self.form
        rng = np.random.default_rng(1)
        self.bias = rng.normal(size=len(weight)).astype(np.float32)
        self.x = rng.normal(size=(weight.shape[1], form.width)).astype(np.float32)
        multiple = form.outputs if piece is None else TILE
        self.rows = -(-len(weight) // multiple) * multiple
        self.residual = rng.normal(size=(self.rows, form.width)).astype(np.float32)
        self.scale = (np.abs(self.x).max(0, initial=1e-30) / 127).astype(np.float32)

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
        layout = {"shared": form.shared, "piece": self.piece}
        runs = pack(Nonzeros.of(self.weight), self.bias, form.precision, form.outputs, **layout)
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
        scratch = zeros(4 * TILE * form.width * form.pieces, np.uint8, side)
        function = build(form, self.target)
        call(function, self.target, words, buffers, parts=parts, scratch=scratch)
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
            numbers, scale = int8(self.weight)
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
@layouts
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_every_epilogue(cpu, precision, layout, width):
    weight = matrix(12, 37, 0.4)
    for epilogue in epilogues(cpu, precision, layout[2], width):
        case = Case(cpu, precision, layout, width, weight, epilogue)
        case.check(case.run())


@pytest.mark.parametrize("width", WIDTHS)
@layouts
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_densities_and_sizes(cpu, precision, layout, width):
    for number, density in enumerate((0, 0.05, 0.5, 1)):
        for place, size in enumerate([(4, 1), (68, 16), (3, 5), (7, 130), (1, 515)]):
            weight = matrix(*size, density, number)
            side = SIDES[(number + place) % 2]
            case = Case(cpu, precision, layout, width, weight, side=side)
            case.check(case.run())


@layouts
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_rows_without_weight_are_their_bias(cpu, precision, layout):
    weight = matrix(16, 40, 0.3)
    weight[4:8] = weight[13] = weight[15] = 0
    case = Case(cpu, precision, layout, 32, weight)
    result = case.run()
    case.check(result)
    for row in (4, 5, 6, 7, 13, 15):
        assert (result[row] == case.bias[row]).all()


@layouts
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_every_number_of_weights_in_a_row(cpu, precision, layout):
    """Of all remainders of groups, and of the sets that take turns."""
    weight = np.tril(np.abs(matrix(40, 40, 1)) + 0.1)
    weight = np.repeat(weight, layout[0], axis=0)
    for width in WIDTHS:
        case = Case(cpu, precision, layout, width, weight)
        case.check(case.run())


@layouts
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_parts_are_the_whole(cpu, precision, layout):
    case = Case(cpu, precision, layout, 64, matrix(140, 50, 0.3), ("", True, "float"))
    for parts in (2, 3, 5, 40):
        assert (case.run(parts) == case.run()).all()


@layouts
@pytest.mark.parametrize("cpu, precision", FORMS)
def test_the_residual_may_be_where_the_sum_goes(cpu, precision, layout):
    case = Case(cpu, precision, layout, 64, matrix(28, 50, 0.3), ("", True, "float"))
    assert (case.run(in_place=True) == case.run()).all()


@pytest.mark.parametrize("cpu, precision", FORMS)
def test_the_most_inputs(cpu, precision):
    weight = np.zeros((4, 8191), np.float32)
    weight[:, [0, 5, 8190]] = matrix(4, 3, 1)
    weight[1] = matrix(1, 8191, 1)
    for layout in [*LAYOUTS[1:3], (4, False, 4096)]:
        case = Case(cpu, precision, layout, 16, weight)
        case.check(case.run())
