"""Whole programs on memory that lies between forbidden pages, without the room at its ends.

Kernels have their own such tests. Here every array that a program hands to them is moved: weights,
tables, rows, records, buffers, scratch and output. Panels of one buffer lie side by side, as ever.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from helpers.guarded import ENFORCED, SIDES, guarded
from helpers.kernels import FORMS, load_apart, targets
from helpers.random_encoders import batch, encoder, error, expected
from sentei.runtime import cost, lanes, library, plan, program, stages, workspace
from sentei.runtime.encoder import Encoder
from sentei.runtime.packed import Packed
from sentei.runtime.program import Program
from sentei.runtime.workspace import Workspace

FEWER = [form for form in FORMS if form[0] != "vnni"]
BOUNDS = {"fp32": 1e-4, "bf16": 0.02, "int8": 0.06}


class Numpy:
    """numpy, whose new arrays are guarded."""

    def __init__(self, side: str) -> None:
        self.side = side

    def __getattr__(self, name: str):
        function = getattr(np, name)
        if name not in ("array", "ascontiguousarray", "zeros"):
            return function
        return lambda *args, **kwargs: guarded(function(*args, **kwargs), self.side)


class Tight(Program):
    """A program whose buffers are as large as a group needs, and no larger."""

    def _workspace(self, lanes, *, shared):
        return Workspace(self._sizes, lanes.count, shared=shared)

    def _scratch(self, size):
        return workspace.aligned(size)


@pytest.fixture(params=SIDES)
def moving(request, monkeypatch):
    """Move all that programs make to that side of their memory."""
    side = request.param
    pack, numpy = plan.pack, Numpy(side)

    def guarded_pack(*args, **kwargs):
        runs = pack(*args, **kwargs)
        arrays = {
            name: guarded(getattr(runs, name), side) for name in ("groups", "starts", "facts")
        }
        return replace(runs, **arrays)

    monkeypatch.setattr(plan, "pack", guarded_pack)
    for module in (stages, lanes, program):
        monkeypatch.setattr(module, "np", numpy)
    for module in (workspace, program):
        monkeypatch.setattr(module, "aligned", lambda size: guarded(np.zeros(size, np.uint8), side))
    monkeypatch.setattr(library, "load", load_apart)
    monkeypatch.setattr(program, "LEAST_WORK", 1e-3)  # so that small programs have teams
    monkeypatch.setattr(program, "host", lambda isa: targets()[isa])
    return side


def moved(some: Encoder, side: str) -> Encoder:
    """With tables that are guarded; weights are packed, and norms stacked, anew."""
    if some.embeddings is None:
        return some
    tables = tuple(guarded(table, side) for table in some.embeddings.tables)
    return replace(some, embeddings=replace(some.embeddings, tables=tables))


def check(some: Encoder, packed: Packed, side: str, cpu: str, precision: str, threads: int) -> None:
    packed = Packed(
        guarded(packed.lengths, side),
        None if packed.ids is None else tuple(guarded(one, side) for one in packed.ids),
        None if packed.rows is None else guarded(packed.rows, side),
        None if packed.masked is None else guarded(packed.masked, side),
        guarded(packed.out, side),
    )
    out = guarded(np.zeros((len(packed.out) + 3, some.hidden), np.float32), side)
    Tight(moved(some, side), precision, threads, cpu).run(packed, out)
    assert error(out, expected(some, packed)) <= BOUNDS[precision]


CASES = {
    "plain": {"hidden": 20, "heads": (2, 1), "head_size": 6, "neurons": (33, 5)},
    "norm first, one table": {"hidden": 36, "norm_first": True, "activation": "relu", "tables": 1},
    "distances": {"hidden": 16, "relative": True, "head_size": 2, "density": 1},
    "no weight": {"hidden": 16, "density": 0, "tables": 0, "activation": "gelu_tanh"},
}
LENGTHS = ([1], [3, 15, 8], [64], [70, 1, 130], [17] * 9)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cpu, precision", FEWER)
def test_nothing_out_of_bounds(cpu, precision, case, moving):
    some = encoder(**CASES[case])
    for number, lengths in enumerate(LENGTHS):
        packed = batch(some, lengths, masked=0.2 * (number % 2), rows=number == 3)
        check(some, packed, moving, cpu, precision, threads=1 + number % 2)


@pytest.mark.parametrize("layout", [(4, False, 16), (1, False, None), (4, True, None)])
@pytest.mark.parametrize("cpu, precision", FEWER)
def test_every_layout(cpu, precision, layout, moving, monkeypatch):
    """Whichever is the fastest."""
    monkeypatch.setattr(cost, "best", lambda *some: cost.Choice(*layout, 0.0))
    some = encoder(hidden=36, heads=(1,), neurons=(67,))
    check(some, batch(some, [70, 9]), moving, cpu, precision, threads=1)


@pytest.mark.skipif(not ENFORCED, reason="pages cannot be forbidden here")
@pytest.mark.parametrize("side", SIDES)
def test_reaching_out_is_noticed(side):
    """The guard itself: a read one byte behind or before kills the process."""
    code = (
        "import sys, ctypes; sys.path.insert(0, sys.argv[1]); import numpy as np\n"
        "from helpers.guarded import guarded\n"
        "one = guarded(np.zeros(100, np.uint8), sys.argv[2])\n"
        "at = one.ctypes.data + (100 if sys.argv[2] == 'end' else -1)\n"
        "ctypes.c_uint8.from_address(at - 1 if sys.argv[2] == 'end' else at + 1).value\n"
        "print('inside', flush=True)\n"
        "ctypes.c_uint8.from_address(at).value\n"
        "print('outside', flush=True)\n"
    )
    folder = __file__.rsplit("/unit/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", code, folder, side], capture_output=True, text=True, check=False
    )
    assert done.stdout == "inside\n" and done.returncode < 0
