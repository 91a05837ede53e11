"""What pruning adds to a training step of a BERT-base-shaped encoder at 32 x 128 tokens.

Time: rounds of one real training step (forward and backward in bf16 autocast, or in float32 where
the device has no instruction for bf16; fused AdamW) followed by the pruning work of every variant,
all in one process. Each variant owns a copy of the weights, moved between rounds as Adam would, and
is driven through its own hooks by an optimizer whose step does nothing, so that what is timed is
the pruning and nothing else. Each variant makes ten steps a round, a whole window of PLATON; the
time reported is that of one. The variants run in two halves, a process each, because all of them at
once need more than 20 GB; each is compared with the training steps of its own rounds.

Memory: each variant in a process of its own, the peak of resident memory above the level before
(``VmHWM``), with the allocator told to give every large block back at once. ``--only`` measures one
of the two and takes the other from the committed results.

``--device cuda`` does the same on a GPU: the clock is read when the device is done, memory is what
torch has allocated there, and the results are files of their own. There has been no GPU to run it.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

import sentei
from benchmarks import machine
from sentei import serialization
from sentei.tensors import multiplies_bf16

STEPS = 10
DEVICE = torch.device("cpu")
"""Where all of it happens."""
TOTAL = 100_000
"""Training steps the recipes are told of: all that is timed lies in their cool-down."""


def cool_down(recipe: sentei.Recipe, *settings: str) -> sentei.Recipe:
    """The recipe with a decision at every step after a short start."""
    shape = ["schedule.warmup=0.0001", "schedule.cooldown=0.9997", "schedule.cooldown_every=1"]
    return serialization.override(recipe, [*shape, *settings])


AT_ONCE = "score.optimizer.warmup=0"
"""Scores that move from the first step: all that is timed lies within their warm-up."""

VARIANTS: dict[str, Callable[[], sentei.Recipe]] = {
    "platon, a decision every step": lambda: cool_down(sentei.platon(0.9)),
    "platon, window 1, a decision every step": lambda: cool_down(
        sentei.platon(0.9, window=1, every=1)
    ),
    "sensitivity, a decision every step": lambda: cool_down(sentei.sensitivity(0.9)),
    "magnitude, a decision every step": lambda: cool_down(sentei.magnitude(0.9, hold=False)),
    "magnitude, held mask": lambda: sentei.magnitude(0.9, warmup=0.0001, cooldown=0.9997),
    "mgpp, prior on, a decision every 10 steps": lambda: sentei.mgpp(
        0.9, warmup=0, cooldown=0, reconstruction=None
    ),
    "proximal, held mask": lambda: sentei.proximal(0.9, warmup=0.0001, cooldown=0.9997),
    "movement, a decision every step": lambda: cool_down(sentei.movement(0.9), AT_ONCE),
    "soft movement, a decision every step": lambda: cool_down(sentei.soft_movement(0.9), AT_ONCE),
    "l0, a decision and a draw every step": lambda: cool_down(sentei.l0(0.9), AT_ONCE),
    "leap, a decision every step": lambda: serialization.override(
        sentei.leap(0.9, temperature=0.02), [AT_ONCE, "budget.optimizer.warmup=0"]
    ),
    "leap on magnitudes, a decision every step": lambda: serialization.override(
        sentei.leap(0.9, score="magnitude", temperature=0.02), ["budget.optimizer.warmup=0"]
    ),
}
PUBLISHED = {
    "published way: new tensors, concatenate, kthvalue, every step": 10,
    "published way, window 1": 1,
}
"""The published implementation, by its window."""
GATED = [name for name, build in VARIANTS.items() if build().mask.latent]
"""Timed by themselves, before the others: the half that needs more memory."""
BATCHES = 4


class Idle(torch.optim.Optimizer):
    """An optimizer that only calls its hooks."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 2e-5})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        return None


class Published:
    """PLATON's step in the published manner: new tensors for all averages, one for all scores."""

    def __init__(self, weights: dict[str, nn.Parameter], window: int) -> None:
        self.weights, self.window, self.count = weights, window, 0
        self.mean, self.importance, self.uncertainty = (
            {name: torch.zeros_like(w.data) for name, w in weights.items()} for _ in range(3)
        )

    @torch.no_grad()
    def step(self) -> None:
        self.count += 1
        place = self.count % self.window
        for name, weight in self.weights.items():
            assert weight.grad is not None
            signal = (weight * weight.grad).abs()
            if place:
                self.mean[name] = (self.mean[name] * place + signal) / (place + 1)
                continue
            self.importance[name] = 0.85 * self.importance[name] + 0.15 * self.mean[name]
            deviation = (self.mean[name] - self.importance[name]).abs()
            self.uncertainty[name] = 0.95 * self.uncertainty[name] + 0.05 * deviation
            self.mean[name] = signal
        scores = {n: self.importance[n] * self.uncertainty[n] for n in self.weights}
        everything = torch.cat([score.view(-1) for score in scores.values()])
        threshold = everything.kthvalue(int(0.9 * everything.numel())).values.item()
        for name, weight in self.weights.items():
            weight.data.masked_fill_(scores[name] < threshold, 0.0)


class Variant:
    """One way to prune, on its own copy of the encoder; gradients are those of the real model."""

    def __init__(self, name: str, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).to(DEVICE)
        scope = sentei.platon().scope.resolve(self.model).sites
        self.weights = {site.name: site.parameter for site in scope}
        if name in PUBLISHED:
            self.step = Published(self.weights, PUBLISHED[name]).step
        else:
            optimizer = Idle(self.model.parameters())
            pruner = sentei.Pruner(self.model, VARIANTS[name](), total_steps=TOTAL, examples=392702)
            pruner.attach(optimizer)
            self.pruner = pruner

            def step() -> None:
                if pruner.recipe.mask.stochastic:
                    pruner._steps.before_forward(self.model, ())  # as every forward pass does
                optimizer.step()

            self.step = step

    def rest(self) -> None:
        """Give the gradients back: all variants' at once would not fit into memory."""
        for weight in self.weights.values():
            weight.grad = None

    @torch.no_grad()
    def move(self, gradients: list[Tensor]) -> None:
        """Take a batch's gradients, and roughly what Adam does with them: at most lr a weight."""
        for weight, gradient in zip(self.weights.values(), gradients, strict=True):
            weight.grad = gradient.clone()  # a latent mask writes into it
            weight.data.add_(torch.tanh(gradient / gradient.std()), alpha=-2e-5)


def classifier(layers: int = 12) -> BertForSequenceClassification:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=layers))
    nn.Module.to(model, DEVICE)
    return model


def now() -> float:
    """Seconds on the clock when the device has done all that it was told."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """On a new batch of 32 random sentences of 128 tokens with random labels."""
    optimizer.zero_grad()
    words, labels = torch.randint(0, 30_000, (32, 128)), torch.randint(0, 2, (32,))
    words, labels = words.to(DEVICE), labels.to(DEVICE)
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=multiplies_bf16(DEVICE)):
        loss = model(words, labels=labels).loss
    loss.backward()
    optimizer.step()


def gradients_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[Tensor]]:
    """Those of some training steps, of the prunable weights."""
    weights = [site.parameter for site in sentei.platon().scope.resolve(model).sites]
    batches: list[list[Tensor]] = []
    for _ in range(BATCHES):
        training_step(model, optimizer)
        batches.append([weight.grad.clone() for weight in weights if weight.grad is not None])
    return batches


def warm_up(variant: Variant, batches: list[list[Tensor]]) -> None:
    """Go on until the ramp is over, averages are filled, and brackets are warm."""
    for turn in range(4 * STEPS):
        variant.move(batches[turn % BATCHES])
        variant.step()
    variant.rest()


def measure_time(names: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of each variant, and of the training step, by round."""
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)
    batches = gradients_of(model, optimizer)
    variants = {name: Variant(name, model) for name in names}
    for variant in variants.values():
        warm_up(variant, batches)
    times: dict[str, list[float]] = {"training step": [], **{name: [] for name in names}}
    for turn in range(rounds):
        start = now()
        training_step(model, optimizer)
        times["training step"].append(now() - start)
        for name, variant in variants.items():
            spent = 0.0
            for step in range(STEPS):
                variant.move(batches[step % BATCHES])
                start = now()
                variant.step()
                spent += now() - start
            variant.rest()
            times[name].append(spent / STEPS)
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    return times


def shares(times: dict[str, list[float]]) -> dict[str, float]:
    """What each variant adds to the training step of its round, median."""
    steps = times["training step"]
    return {
        name: statistics.median(t / s for t, s in zip(seconds, steps, strict=True))
        for name, seconds in times.items()
    }


def measure_memory(name: str) -> dict[str, int]:
    """In a fresh process: bytes of state kept, and peak above it during steps."""
    model = classifier()
    sites = sentei.platon().scope.resolve(model).sites
    gradients = [torch.randn_like(site.parameter) * 1e-4 for site in sites]
    before = _resident()
    variant = Variant(name, model)
    copied = sum(p.nbytes for p in variant.model.parameters())
    for _ in range(2):
        variant.move(gradients)
        variant.step()
    copied += sum(gradient.nbytes for gradient in gradients)
    state = _resident() - before - copied
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    level = _resident()
    for _ in range(4 * STEPS):
        variant.step()
    return {"state": state, "peak": _resident("VmHWM") - level}


def _resident(field: str = "VmRSS") -> int:
    """Bytes in use now, or (``VmHWM``) at most since the peak was forgotten."""
    if DEVICE.type == "cuda":
        most = torch.cuda.max_memory_allocated()
        return most if field == "VmHWM" else torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def _apart(*arguments: str, **environment: str) -> Any:
    """What this module prints, run with ``arguments`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", "--device", DEVICE.type, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    global DEVICE
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=["time", "memory"])
    parser.add_argument("--missing", action="store_true", help="memory: only what is not known")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--time-of", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    DEVICE = torch.device(arguments.device)
    if arguments.memory_of:
        print(json.dumps(measure_memory(arguments.memory_of)))
        return
    if arguments.time_of:
        print(json.dumps(measure_time(arguments.time_of, arguments.rounds)))
        return

    known = machine.RESULTS / f"{name_of_results()}.json"
    results = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}

    def keep() -> None:
        known.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    names = [*VARIANTS, *PUBLISHED]
    if arguments.only != "memory":
        results |= {"seconds": [], "seconds_by": about()}
        rounds = ("--rounds", str(arguments.rounds))
        for half in (GATED, [name for name in names if name not in GATED]):
            results["seconds"].append(_apart(*rounds, "--time-of", *half))
            keep()
    if arguments.only != "time":
        results["memory_by"] = about()
        known_memory = results.get("memory", {}) if arguments.missing else {}
        results["memory"] = {name: known_memory[name] for name in names if name in known_memory}
        once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
        for name in [name for name in names if name not in results["memory"]]:
            results["memory"][name] = _apart("--memory-of", name, **once)
            keep()
    if len(results.get("seconds", ())) == 2 and "memory" in results:
        report(results)


def name_of_results() -> str:
    """Of the files."""
    return "overhead" if DEVICE.type == "cpu" else f"overhead_{DEVICE.type}"


def about() -> dict[str, str]:
    """What it runs on."""
    facts = machine.facts()
    facts["precision"] = "bf16 autocast" if multiplies_bf16(DEVICE) else "float32"
    if DEVICE.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _resident_of(memory: dict[str, Any], name: str, weights: int) -> str:
    """Bytes kept for a weight, and the peak; of what was not measured, nothing."""
    if name not in memory:
        return " | "
    return f"{memory[name]['state'] / weights:.2f} | {memory[name]['peak'] / 1e6:.1f}"


def report(results: dict[str, Any]) -> None:
    """Write the results."""
    memory, times = results["memory"], results["seconds"]
    sites = sentei.platon().scope.resolve(classifier()).sites
    weights = sum(site.parameter.numel() for site in sites)
    largest = max(site.parameter.nbytes for site in sites)
    steps = [f"{statistics.median(half['training step']):.2f} s" for half in times]
    share = shares(times[0]) | shares(times[1])
    seconds = times[0] | times[1]
    published = share[next(iter(PUBLISHED))]
    precision = results["seconds_by"].get("precision", "bf16 autocast")
    rows = []
    for name in [*VARIANTS, *PUBLISHED]:
        declared = VARIANTS[name]().bytes_per_weight if name in VARIANTS else ""
        rows.append(
            f"| {name} | {1e3 * statistics.median(seconds[name]):.0f} | {share[name]:.2%} "
            f"| {published / share[name]:.1f}x | {declared} "
            f"| {_resident_of(memory, name, weights)} |"
        )
    table = "\n".join(
        [
            f"Pruning beside a training step ({precision} forward and backward, fused AdamW) of a "
            f"BERT-base-shaped encoder at 32 x 128 tokens: the step takes {steps[0]} beside the "
            f"variants that learn their masks and {steps[1]} beside the others, medians of "
            f"{len(times[0]['training step'])} interleaved rounds. {weights:,} prunable weights; "
            f"the largest matrix is {largest / 1e6:.1f} MB. *Declared* is what the recipe says it "
            "keeps for a prunable weight, *kept* what is resident, both in bytes; *peak* is the "
            "most resident "
            "memory above that during steps.",
            "",
            "| way | ms a step | of the step | published / it | declared | kept | peak, MB |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    results.pop("machine", None)
    memory_by = results["memory_by"]
    table += f"\n\nMemory: commit {memory_by['commit']}, `{memory_by['command']}`. Time:"
    machine.write(name_of_results(), table, {**results, "weights": weights}, results["seconds_by"])


if __name__ == "__main__":
    main()
