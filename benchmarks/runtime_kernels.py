"""Every kernel of the engine against the roof of the machine.

A layer of each size and precision, 90 % sparse and dense, runs stage by stage over four sequences
of 128 tokens; of some rounds the fastest counts, because what slows a machine down is not the
kernel's. The roof is what the busiest of the core's units needs: 2 loads of 64 bytes, 2 dots or
multiply-adds, 2 shuffles and 4 vector operations a cycle on AVX-512 (Zen 5; other cores have fewer,
and their shares are larger). The clock is measured by a chain
of instructions of one cycle.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.measured import markdown
from sentei.runtime import cpu, library, program
from sentei.runtime.encoder import Embeddings, Encoder, Layer, Linear, Norm
from sentei.runtime.ir import INDEX, POINTER, Function
from sentei.runtime.kernels import product
from sentei.runtime.lanes import lay_out
from sentei.runtime.nonzeros import Nonzeros
from sentei.runtime.packed import Packed

SIZES = {"384": (384, 12, 1536), "768": (768, 12, 3072)}
LENGTH, SEQUENCES = 128, 4
PANELS = LENGTH * SEQUENCES // 64
LOADS, DOTS, SHUFFLES, OPERATIONS = 2, 2, 2, 4
"""Of a cycle."""


def encoder(hidden: int, heads: int, inner: int, density: float) -> Encoder:
    random = np.random.default_rng(0)

    def linear(outputs: int, inputs: int) -> Linear:
        weight = random.standard_normal((outputs, inputs)).astype(np.float32)
        weight *= (random.random(weight.shape) < density) / np.float32(math.sqrt(density * inputs))
        return Linear(name="", weight=weight, bias=np.zeros(outputs, np.float32))

    norm = Norm(weight=np.ones(hidden, np.float32), bias=np.zeros(hidden, np.float32), eps=1e-12)
    layer = Layer(
        query=linear(hidden, hidden),
        key=linear(hidden, hidden),
        value=linear(hidden, hidden),
        out=linear(hidden, hidden),
        heads=heads,
        head_size=hidden // heads,
        scale=(hidden // heads) ** -0.5,
        ffn_in=linear(inner, hidden),
        ffn_out=linear(hidden, inner),
        attention_norm=norm,
        ffn_norm=norm,
    )
    table = random.standard_normal((1000, hidden)).astype(np.float32)
    return Encoder(
        layers=(layer, layer),
        hidden=hidden,
        norm_first=False,
        activation="gelu",
        embeddings=Embeddings(tables=(table, table), norm=norm),
    )


def clock(target: cpu.Target) -> float:
    """Cycles a nanosecond: a chain of additions and exclusive ors, one cycle each."""
    f = Function("chain", [("out", POINTER), ("count", INDEX)])
    out, count = f.parameters
    with f.loop(0, count, 1, [out.load(INDEX)]) as loop:
        value = loop.values[0]
        for _ in range(16):
            value = value + loop.index
            value = f.assign(INDEX, f"xor i64 {value.name}, {count.name}")
        loop.next = [value]
    out.store(loop.values[0])
    chain = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(
        library.load([f], target)["chain"]
    )
    word, turns, best = np.ones(1, np.int64), 100_000, math.inf
    for _ in range(20):
        begin = time.perf_counter_ns()
        chain(word.ctypes.data, turns)
        best = min(best, (time.perf_counter_ns() - begin) / (turns * 16))
    return 2 / best


@dataclass
class Stage:
    """A kernel as a stage of its own, and the cycles that the core needs at least."""

    kernel: str
    cycles: float
    nanoseconds: float = math.inf


class Stages:
    """A program's kernels, one by one."""

    def __init__(self, model: Encoder, precision: str) -> None:
        self.model, self.program = model, program.Program(model, precision, threads=1)
        lengths = np.full(SEQUENCES, LENGTH)
        tokens = int(lengths.sum())
        ids = np.arange(tokens) % 1000
        self.packed = Packed(
            lengths=lengths, out=np.arange(tokens), ids=(ids, ids), rows=None, masked=None
        )
        self.out = np.zeros((tokens, model.hidden), np.float32)
        self.lanes = lay_out(lengths, self.program._most)
        self.order = self.program._orders[False, True]
        self.words = self.order.words(1)
        self.space = self.program._workspace(self.lanes, shared=False)
        self.scratch = self.program._scratch(self.program._scratch_bytes(self.lanes))

    def run(self, rounds: int) -> list[Stage]:
        code = self.program._code
        names = {code[name]: name for name in code.names}
        result = [
            Stage(names[int(self.order.operations[first][2])], 0.0) for _, _, first, _ in self.words
        ]
        for _ in range(rounds):
            self.space.fill(
                self.lanes, self.packed, 0, self.program._tables, self.out, len(self.words)
            )
            for stage, word in zip(result, self.words, strict=True):
                record = self.space._record(self.lanes, len(self.words))
                one = np.ascontiguousarray(word[None])
                begin = time.perf_counter_ns()
                self.program._drive(
                    one.ctypes.data,
                    1,
                    self.order.operations.ctypes.data,
                    record.ctypes.data,
                    self.scratch.ctypes.data,
                    1,
                    None,
                )
                stage.nanoseconds = min(stage.nanoseconds, time.perf_counter_ns() - begin)
        return result


def product_cycles(weight: Nonzeros, precision: str, kernel: str) -> float:
    """Of a panel: what the unit that is needed most needs."""
    kept: Any = np.zeros(weight.shape, bool)
    kept[weight.rows, weight.columns] = True
    if "blocks" in kernel:
        kept = kept.reshape(-1, product.BLOCK, kept.shape[1]).any(axis=1)
    groups = int(np.ceil(kept.sum(axis=1) / product.GROUP[precision]).sum())
    if "blocks" in kernel:
        return groups * 16 / DOTS
    shuffles = {"int8": 8, "bf16": 4, "fp32": 0}[precision]
    loads = {"int8": 4 + 1, "bf16": 4 + 1, "fp32": 4 + 1}[precision]
    return groups * max(shuffles / SHUFFLES, loads / LOADS, 4 / DOTS)


def bounds(model: Encoder, precision: str, stages: list[Stage]) -> None:
    """Fill in the cycles."""
    layer = model.layers[0]
    matrices = iter(
        [layer.query, layer.key, layer.value, layer.out, layer.ffn_in, layer.ffn_out] * 2
    )
    hidden, inner = model.hidden, len(layer.ffn_in.bias)
    for stage in stages:
        name = stage.kernel
        if name.startswith("product"):
            stage.cycles = PANELS * product_cycles(next(matrices).nonzeros(), precision, name)
        elif name.startswith("attention"):
            width = layer.head_size // (1 if "float" in name else 2)
            per_key = 1 if "float" in name else 2
            dots = LENGTH * 4 * (width + layer.head_size / per_key)
            powers = LENGTH * 4 * 12
            stage.cycles = PANELS * layer.heads * (dots / DOTS + powers / OPERATIONS)
        elif name.startswith("norm"):
            loads = 12 + 4 * ("int8" in name or "half" in name)
            stage.cycles = PANELS * hidden * loads / LOADS
        elif name.startswith("convert"):
            _, source, emit, _ = name.split("_")
            features = inner if source == "half" else hidden
            needs = max(8 / LOADS, 19 / OPERATIONS) if emit == "int8" else 4 / LOADS
            stage.cycles = PANELS * features * needs
        else:
            stage.cycles = PANELS * hidden * 4 * (64 / 16) / SHUFFLES


def rows(rounds: int) -> Iterator[dict[str, Any]]:
    target = cpu.host()
    rate = clock(target)
    for size, (hidden, heads, inner) in SIZES.items():
        for density in (0.1, 1.0):
            model = encoder(hidden, heads, inner, density)
            for precision in target.precisions:
                stages = Stages(model, precision).run(rounds)
                bounds(model, precision, stages)
                whole = sum(stage.nanoseconds for stage in stages)
                for name in dict.fromkeys(stage.kernel for stage in stages):
                    some = [stage for stage in stages if stage.kernel == name]
                    spent = sum(stage.nanoseconds for stage in some)
                    roof = sum(stage.cycles for stage in some) / rate
                    yield {
                        "hidden": size,
                        "density": density,
                        "precision": precision,
                        "kernel": name,
                        "microseconds": spent / 1e3 / SEQUENCES / 2,
                        "share_of_roof": roof / spent,
                        "share_of_time": spent / whole,
                        "gigahertz": rate,
                    }


def table(measured: list[dict[str, Any]]) -> str:
    head = ["hidden", "kept", "precision", "kernel", "us", "share of the roof", "of the time"]
    lines = [
        [
            one["hidden"],
            f"{100 * one['density']:g} %",
            one["precision"],
            f"`{one['kernel']}`",
            f"{one['microseconds']:.1f}",
            f"{100 * one['share_of_roof']:.0f} %",
            f"{100 * one['share_of_time']:.0f} %",
        ]
        for one in measured
    ]
    return (
        "Microseconds of a layer and a sequence of 128 tokens, one thread; the roof is the core's "
        f"busiest unit at {measured[0]['gigahertz']:.2f} GHz.\n\n" + markdown(head, lines)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    measured = list(rows(parser.parse_args().rounds))
    facts = machine.facts() | machine.versions("llvmlite")
    machine.write("runtime_kernels", table(measured), {"kernels": measured}, facts)


if __name__ == "__main__":
    main()
