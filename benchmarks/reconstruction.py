"""What reconstruction adds to a training: seconds of processor time, one thread.

Two copies of a model are trained in turns, step by step, one without and one with it, in bf16
autocast where the CPU has instructions for it, else in float32. Both decide at every fourth step;
the one observes inputs in the third and fourth, and reconstructs after the decision. What it adds
to a whole training follows from the steps and decisions of ``auto``: medians of the steps'
differences, over the median step. Weights and texts are random; the sparsity rises to 90 %.

    OMP_NUM_THREADS=1 python -m benchmarks.reconstruction
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import sentei
from benchmarks import machine
from sentei import serialization
from sentei.pruning.inputs import observed_bytes
from sentei.tensors import multiplies_bf16

CPU = torch.device("cpu")
EVERY, OBSERVED = 4, 2
SHAPES = {
    "MiniLM-L6, 16 x 64": (384, 6, 12, 1536, 16, 64),
    "BERT-base, 32 x 128": (768, 12, 12, 3072, 32, 128),
}
LENGTHS = (313, 1_000, 3_000, 10_000)
"""Of trainings, in steps."""


def recipe(steps: int, part: str) -> sentei.Recipe:
    """PLATON's, with a decision at every fourth step of a ramp that is the whole training."""
    base = sentei.platon(0.9, warmup=0, cooldown=0, every=EVERY, window=EVERY)
    settings = [f"reconstruction.inputs.steps={OBSERVED}", "reconstruction.tolerance=0"]
    observed = settings * (part != "null")
    return serialization.override(
        base, ["schedule.cooldown_every=0", f"reconstruction={part}", *observed]
    )


class Training:
    """One copy of a model in training; what each step takes."""

    def __init__(self, model: nn.Module, steps: int, part: str) -> None:
        self.model = copy.deepcopy(model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)
        pruner = sentei.Pruner(self.model, recipe(steps, part), total_steps=steps)
        pruner.attach(self.optimizer)
        self.pruner = pruner

    def step(self, ids: torch.Tensor) -> float:
        """Seconds of one step."""
        labels = torch.zeros(ids.shape[0], dtype=torch.long)
        began = time.thread_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bf16(CPU)):
            output = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
        output.loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.thread_time() - began


def measure(name: str, cycles: int) -> dict[str, float]:
    """Seconds of a step, of observing one, and of a reconstruction; bytes of what is observed."""
    width, layers, heads, inner, batch, length = SHAPES[name]
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
    )
    model, steps = BertForSequenceClassification(config).train(), EVERY * cycles
    plain, rebuilt = (Training(model, steps, part) for part in ("null", "least_squares"))
    generator = torch.Generator().manual_seed(0)
    took: list[tuple[float, float]] = []
    for _ in range(steps):
        ids = torch.randint(1000, 20000, (batch, length), generator=generator)
        took.append((plain.step(ids), rebuilt.step(ids)))

    def added(place: int) -> float:
        return statistics.median(b - a for a, b in took[place::EVERY])

    sites = rebuilt.pruner._state.selected
    observing = added(EVERY - OBSERVED)
    return {
        "step": statistics.median(a for a, _ in took),
        "observing": observing,
        "reconstruction": added(EVERY - 1) - observing,
        "bytes": observed_bytes(rebuilt.model, sites, rebuilt.pruner.recipe),
    }


def share(cost: dict[str, float], steps: int) -> float:
    """What ``auto`` adds to a training of so many steps, as a fraction of it."""
    made, observed = _counts(sentei.auto(0.9), steps)
    seconds = observed * cost["observing"] + made * cost["reconstruction"]
    return seconds / (steps * cost["step"])


def _counts(recipe: sentei.Recipe, steps: int) -> tuple[int, int]:
    """Reconstructions in a training, and steps in which inputs are observed."""
    part, schedule = recipe.reconstruction, recipe.schedule
    assert part is not None
    updates = [step for step in range(1, steps + 1) if schedule.is_update(step, steps)]
    slots = [-1, *(part.slot(schedule.ramp(step, steps)) for step in updates)]
    made = [step for step, one, two in zip(updates, slots, slots[1:], strict=False) if two > one]
    observed = {step - back for step in made for back in range(part.inputs.steps)}
    return len(made), len(observed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=5, help="decisions that are timed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    costs = {name: measure(name, arguments.cycles) for name in SHAPES}
    head = ["", "step", "observing a step", "a reconstruction", "memory"]
    head += [f"of {steps:,} steps" for steps in LENGTHS]
    rows = [head, ["---"] * len(head)]
    format_: Callable[[float], str] = "{:.2f} s".format
    for name, cost in costs.items():
        seconds = [format_(cost[key]) for key in ("step", "observing", "reconstruction")]
        shares = [f"{share(cost, steps):.1%}" for steps in LENGTHS]
        rows.append([name, *seconds, f"{cost['bytes'] / 1e6:.0f} MB", *shares])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    facts = machine.facts()
    facts["precision"] = "bf16 autocast" if multiplies_bf16(CPU) else "float32"
    machine.write("reconstruction", table, {"costs": costs}, facts)


if __name__ == "__main__":
    main()
