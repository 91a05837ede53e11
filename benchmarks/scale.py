"""How memory and time of pruning grow with the number of prunable weights, method by method.

Synthetic models of square matrices, as many as give so many million weights, each with every method
in a process of its own. Memory is what is resident above the model and its gradients (``VmRSS``),
beside what the recipe predicts, which is what ``sentei inspect`` shows; and the most above that
during steps (``VmHWM``). Time is the processor's, one thread, for the pruning work of a step, with
a decision at every step, driven by an optimizer whose step does nothing. Gradients are random and
stay as they are.

``--paper`` measures nothing: it works out what a decoder of 70 B weights takes on 64 GPUs under
FSDP2, from the bytes that are kept, the sizes of what is summed over processes, and the three
numbers of a machine below.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sentei
from benchmarks import machine
from benchmarks.overhead import VARIANTS, Idle, _resident

WIDTHS = {1: 256, 10: 512, 100: 1024, 300: 2048, 1000: 4096}
"""Of the square matrices, by millions of weights."""

METHODS = [
    "platon, a decision every step",
    "magnitude, a decision every step",
    "mgpp, prior on, a decision every 10 steps",
    "movement, a decision every step",
    "leap, a decision every step",
    "l0, a decision and a draw every step",
]


WARM = 20
"""Steps before those that are timed: past the first windows, the bracket warm."""


def matrices(millions: int) -> int:
    """How many there are."""
    return max(round(millions * 1e6 / WIDTHS[millions] ** 2), 1)


def needed(name: str, millions: int) -> int:
    """Bytes of weights, gradients and pruner, and a tenth more."""
    weights = matrices(millions) * WIDTHS[millions] ** 2
    return round(1.1 * weights * (8 + VARIANTS[name]().bytes_per_weight))


def available() -> int:
    """Bytes of memory that are free, or would be if somebody asked."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no MemAvailable in /proc/meminfo")


def measure(name: str, millions: int, steps: int) -> dict[str, Any]:
    """In a fresh process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    width, count = WIDTHS[millions], matrices(millions)
    model = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(count))
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight).mul_(1e-4)
    recipe = VARIANTS[name]()
    scope = recipe.scope.model_copy(update={"include": ("*weight",)})
    recipe = recipe.model_copy(update={"scope": scope})
    predicted = recipe.fit(model, 100_000, 392702).state_bytes
    before = _resident()
    optimizer = Idle(model.parameters())
    pruner = sentei.Pruner(model, recipe, total_steps=100_000, examples=392702)
    pruner.attach(optimizer)

    def step() -> None:
        if pruner.recipe.mask.stochastic:
            pruner._steps.before_forward(model, ())
        optimizer.step()

    for _ in range(WARM):
        step()
    kept = _resident() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    level, seconds = _resident(), []
    for _ in range(steps):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    weights = sum(weight.numel() for weight in model.parameters())
    return {
        "weights": weights,
        "predicted": predicted,
        "kept": kept,
        "peak": _resident("VmHWM") - level,
        "seconds": statistics.mean(seconds),
    }


GPUS, BANDWIDTH, ALL_REDUCE = 64, 3.35e12, 50e-6
"""Of a machine on paper: GPUs, bytes a second of each one's memory (an H100's, as its maker says),
seconds of a small sum over all of them."""
LAYERS, HIDDEN, KEYS, FFN, VOCABULARY = 80, 8192, 1024, 28_672, 128_256
"""Of a decoder of 70 B weights, with grouped keys and values (Llama 3's)."""
ROUNDS, BINS = 5, 259
"""Sums of one cut over shards, at most, and the 8-byte numbers in each; see
:mod:`sentei.pruning.sharded_cut`."""


def paper() -> None:
    """Work out bytes and seconds of a large model, and write them."""
    matrices = LAYERS * 7
    per_layer = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * FFN
    prunable = LAYERS * per_layer
    weights = prunable + 2 * VOCABULARY * HIDDEN
    rows = []
    for name, cuts in (("platon", 1), ("mgpp", 1), ("movement", matrices), ("leap", matrices)):
        recipe = sentei.methods.find(name).build(0.5)
        kept = recipe.bytes_per_weight
        sums = cuts * (ROUNDS + 3)  # and counts, ties, what has changed
        summed = 8 * (cuts * (ROUNDS * BINS + 5) + GPUS * matrices)
        sent = 2 * (GPUS - 1) / GPUS * summed
        passes = ROUNDS + 2  # of the scores, read and compared, and the masks
        moved = prunable / GPUS * passes * 16
        rows.append(
            f"| {name} | {16 * weights / GPUS / 1e9:.1f} | {kept * prunable / GPUS / 1e9:.1f} "
            f"| {sums:,} | {sent / 1e6:.2f} | {1e3 * moved / BANDWIDTH:.0f} "
            f"| {1e3 * sums * ALL_REDUCE:.1f} |"
        )
    table = "\n".join(
        [
            f"On paper, not measured: {weights / 1e9:.1f} B weights, {prunable / 1e9:.1f} B of "
            f"them prunable in {matrices} matrices, on {GPUS} GPUs. *Model* is float32 weights, "
            "gradients and AdamW's averages, *pruner* what it keeps beside them; activations and "
            f"gathered layers come on top. *Sums* are those of one update over all GPUs, *wire* "
            "what each GPU sends for them. An update reads scores "
            f"{ROUNDS + 2} times at most, 16 bytes a weight with what is made of them on the way, "
            f"at {BANDWIDTH / 1e12:.2f} TB/s; a sum takes {1e6 * ALL_REDUCE:.0f} us. Launches are "
            "left out.",
            "",
            "| method | model, GB a GPU | pruner, GB a GPU | sums | wire, MB | memory, ms "
            "| sums, ms |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    machine.write("scale_paper", table, {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=int, nargs="+", choices=WIDTHS, default=[*WIDTHS])
    parser.add_argument("--steps", type=int, default=10, help="timed; PLATON's window is of 10")
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, millions = arguments.one
        print(json.dumps(measure(name, int(millions), arguments.steps)))
        return
    if arguments.paper:
        paper()
        return
    once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    results: dict[str, dict[str, Any]] = {}
    left_out: dict[str, int] = {}
    for name in METHODS:
        for millions in arguments.millions:
            if needed(name, millions) > available():
                left_out[f"{name}: {millions:,} M"] = needed(name, millions)
                continue
            words = ["--steps", str(arguments.steps), "--one", name, str(millions)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.scale", *words],
                env={**os.environ, **once},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            results.setdefault(name, {})[str(millions)] = json.loads(done.stdout)
            print(f"{name}: {millions} M", file=sys.stderr, flush=True)
    report(results, left_out)


def report(results: dict[str, dict[str, Any]], left_out: dict[str, int]) -> None:
    """Write the results, and what would have taken more memory than there is."""
    rows = [
        f"| {name} | {one['weights'] / 1e6:,.0f} M | {one['predicted'] / 1e6:,.1f} "
        f"| {one['kept'] / 1e6:,.1f} | {one['kept'] / one['predicted']:.3f} "
        f"| {one['peak'] / 1e6:,.1f} | {1e3 * one['seconds']:,.1f} "
        f"| {1e9 * one['seconds'] / one['weights']:.2f} |"
        for name, sizes in results.items()
        for one in sizes.values()
    ]
    table = "\n".join(
        [
            "Pruning alone, beside a model of square matrices. *Predicted* and *kept* are what the "
            "pruner keeps between steps, *peak* the most above that in one; a float32 model with "
            "its gradients and AdamW's averages takes 16 bytes a weight besides. *ms* are of "
            f"processor time, one thread, means of the steps after the first {WARM}."
            + "".join(
                f" Left out for want of memory: {what}, {size / 1e9:.0f} GB."
                for what, size in left_out.items()
            ),
            "",
            "| method | prunable weights | predicted, MB | kept, MB | kept / predicted | peak, MB "
            "| ms a step | ns a weight |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    machine.write("scale", table, {"methods": results, "left_out": left_out})


if __name__ == "__main__":
    main()
