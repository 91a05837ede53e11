"""What the engine's products cost, measured and fitted: the numbers of ``sentei.runtime.cost``.

Random matrices of some shapes and densities, in every layout that they can have; of interleaved
rounds the fastest, because what slows a machine down is not the layout's. Then one line for each
precision, by least squares of relative errors, nothing negative.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls  # type: ignore[import-untyped]

from benchmarks import machine
from benchmarks.measured import markdown
from sentei.runtime import cost, cpu, library
from sentei.runtime.cpu import Precision
from sentei.runtime.kernels import product
from sentei.runtime.kernels.kernel import Call, Slot
from sentei.runtime.layout import pack
from sentei.runtime.nonzeros import Nonzeros
from sentei.runtime.workspace import aligned

SHAPES = ((384, 384), (1536, 384), (384, 1536), (768, 768), (3072, 768), (768, 3072))
DENSITIES = (0.05, 0.1, 0.2, 0.35, 0.5, 1.0)
PANELS = 4
WIDTH = 64
TERMS = ("group", "far", "shared", "output", "wait")

KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 3)


@dataclass
class Measured:
    """A product in one layout: what its cost is made of, and the fastest nanoseconds."""

    precision: Precision
    shape: tuple[int, int]
    density: float
    layout: str
    terms: dict[str, float]
    nanoseconds: float = float("inf")


class Product:
    """One matrix, packed, with panels to read and to write."""

    def __init__(
        self, weight: Nonzeros, choice: cost.Choice, precision: Precision, code: Any
    ) -> None:
        outputs, inputs = weight.shape
        bias = np.zeros(outputs, np.float32)
        self.runs = pack(
            weight, bias, precision, choice.outputs, shared=choice.shared, piece=choice.piece
        )
        size = 4 // product.GROUP[precision]
        rows = -(-outputs // product.TILE) * product.TILE
        self.panels = {
            Slot.INPUT: [aligned(inputs * WIDTH * size) for _ in range(PANELS)],
            Slot.SUM: [aligned(rows * WIDTH * 4) for _ in range(PANELS)],
            Slot.SCALE: [aligned(4 * WIDTH)] * PANELS,
        }
        self.table = np.zeros((len(Slot), PANELS), np.int64)
        for slot, panels in self.panels.items():
            self.table[slot] = [panel.ctypes.data for panel in panels]
        self.call = np.zeros(len(Call), np.int64)
        self.call[[Call.BUFFERS, Call.PANELS]] = self.table.ctypes.data, PANELS
        runs = self.runs
        places = (one.ctypes.data for one in (runs.groups, runs.starts, runs.facts))
        counts = runs.runs, runs.pieces
        slots = Slot.INPUT, Slot.SUM, Slot.STREAM, Slot.SCALE
        self.words = np.array([*places, *counts, *slots], np.int64)
        self.scratch = aligned(product.TILE * WIDTH * 4)
        self.kernel = KERNEL(code[form(choice, precision).name])

    def __call__(self) -> None:
        for panel in range(PANELS):
            self.kernel(
                self.words.ctypes.data,
                self.call.ctypes.data,
                self.scratch.ctypes.data,
                panel,
                0,
                1,
            )


def form(choice: cost.Choice, precision: Precision) -> product.Form:
    return product.Form(
        precision, choice.outputs, choice.shared, WIDTH, pieces=choice.piece is not None
    )


def terms(weight: Nonzeros, choice: cost.Choice, precision: Precision) -> dict[str, float]:
    """How often each cost is paid: groups and sums, as the model counts them."""
    zero = dict.fromkeys(TERMS, 0.0)
    counted = {}
    for name in TERMS:
        one = cost.Cost(**{**zero, name: 1.0})
        every = cost.layouts(weight, precision, one, choice.outputs)
        counted[name] = next(
            other.nanoseconds
            for other in every
            if (other.shared, other.piece) == (choice.shared, choice.piece)
        )
    return counted


def measure(isa: cpu.Isa | None, rounds: int) -> list[Measured]:
    target = cpu.host(isa)
    random = np.random.default_rng(0)
    result = []
    for precision in target.precisions:
        every = [cost.Choice(cost.ROWS[target.isa], False, piece, 0) for piece in (None, 1)]
        every.append(cost.Choice(product.BLOCK, True, None, 0))
        functions = [product.build(form(choice, precision), target) for choice in every]
        code = library.load(functions, target)
        for shape in SHAPES:
            for density in DENSITIES:
                dense = random.standard_normal(shape).astype(np.float32)
                weight = Nonzeros.of(dense * (random.random(shape) < density))
                runs = []
                for choice in cost.choices(weight, precision, target.isa):
                    layout = "blocks" if choice.shared else "pieces" if choice.piece else "rows"
                    found = terms(weight, choice, precision)
                    one = Measured(precision, shape, density, layout, found)
                    runs.append((one, Product(weight, choice, precision, code)))
                    result.append(one)
                for _ in range(rounds):
                    for one, run in runs:
                        begin = time.process_time_ns()
                        run()
                        spent = (time.process_time_ns() - begin) / PANELS
                        one.nanoseconds = min(one.nanoseconds, spent)
    return result


def fit(measured: list[Measured]) -> dict[str, float]:
    """The costs that explain the measurements best."""
    counts = np.array([[one.terms[name] for name in TERMS] for one in measured])
    spent = np.array([one.nanoseconds for one in measured])
    costs, _ = nnls(counts / spent[:, None], np.ones(len(spent)))
    return dict(zip(TERMS, (round(float(one), 3) for one in costs), strict=True))


def table(by_isa: Mapping[cpu.Isa, list[Measured]]) -> tuple[str, list[dict[str, Any]]]:
    lines, data = [], []
    for isa, measured in by_isa.items():
        for precision in dict.fromkeys(one.precision for one in measured):
            some = [one for one in measured if one.precision == precision]
            costs = fit(some)
            errors = [
                abs(sum(costs[n] * one.terms[n] for n in TERMS) / one.nanoseconds - 1)
                for one in some
            ]
            error = f"{100 * statistics.median(errors):.0f} %"
            lines.append([isa, precision, *(f"{costs[name]:.2f}" for name in TERMS), error])
            data.append({"isa": isa, "precision": precision, "costs": costs, "error": error})
    return markdown(["isa", "precision", *TERMS, "median error"], lines), data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    best = cpu.host().isa
    kinds: list[cpu.Isa] = ["generic", "avx2", "avx512"]
    by_isa = {isa: measure(isa, rounds) for isa in kinds[kinds.index(best) :: -1]}
    text, data = table(by_isa)
    points = {isa: [vars(one) for one in some] for isa, some in by_isa.items()}
    versions = machine.facts() | machine.versions("llvmlite")
    machine.write("runtime_cost", text, {"fits": data, "measured": points}, versions)


if __name__ == "__main__":
    main()
