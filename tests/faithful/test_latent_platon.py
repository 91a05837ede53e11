"""PLATON on latent weights beside an autograd-gated network scored by its formulas."""

from __future__ import annotations

import torch
from torch.nn import functional

import sentei
from helpers.gated import MICRO_BATCHES, STEPS, Gated, expect_same, ours, top

EVERY, WARMUP, COOLDOWN, BETA1, BETA2 = 3, 6, 24, 0.85, 0.95


class Reference(Gated):
    """Gates are leaves: their gradient is weight x gradient, of pruned weights too."""

    def __init__(self, sparsity):
        super().__init__()
        self.sparsity = sparsity
        self.masks = [torch.ones_like(weight) for weight in self.weights]
        self.window, self.importance, self.uncertainty = (
            [torch.zeros_like(weight) for weight in self.weights] for _ in range(3)
        )
        self.used = []

    def gates(self):
        self.used.append([mask.clone().requires_grad_() for mask in self.masks])
        return self.used[-1]

    def signals(self):
        return [sum(gate.grad for gate in gates).abs() for gates in zip(*self.used, strict=True)]

    def observe(self, step):
        for i, signal in enumerate(self.signals()):
            place = step % EVERY
            if place:
                self.window[i] = (place * self.window[i] + signal) / (place + 1)
                continue
            mean = self.window[i]
            smooth = BETA1 * self.importance[i] + (1 - BETA1) * mean
            self.uncertainty[i] = BETA2 * self.uncertainty[i] + (1 - BETA2) * (mean - smooth).abs()
            self.importance[i], self.window[i] = smooth, signal

    def target(self, step):
        """Sparsity after ``step``; None where nothing is decided."""
        end = STEPS - COOLDOWN
        if step > end:
            return self.sparsity
        if step <= WARMUP or step % EVERY:
            return None
        return self.sparsity * (1 - (1 - (step - WARMUP) / (end - WARMUP)) ** 3)

    def decide(self, target):
        scores = [a * b for a, b in zip(self.importance, self.uncertainty, strict=True)]
        joined = torch.cat([score.flatten() for score in scores])
        mask = top(joined, round(joined.numel() * target))
        self.masks = [part.view(16, 16) for part in mask.split(256)]

    def step(self):
        self.used = []
        for x, y in zip(
            self.inputs[self.t].chunk(MICRO_BATCHES),
            self.targets[self.t].chunk(MICRO_BATCHES),
            strict=True,
        ):
            (functional.mse_loss(self.forward(x), y) / MICRO_BATCHES).backward()
        self.t += 1
        self.observe(self.t)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if (target := self.target(self.t)) is not None:
            self.decide(target)


def test_equals_an_autograd_gated_network_at_every_step():
    recipe = sentei.platon(
        0.7,
        window=EVERY,
        every=EVERY,
        iterate="old",
        warmup=WARMUP / STEPS,
        cooldown=COOLDOWN / STEPS,
    )
    run = ours(sentei.override(recipe, ["mask=straight_through"]))
    reference = Reference(0.7)
    revived, before = 0, dict.fromkeys(run.pruner.masks, torch.tensor(True))
    for _ in range(STEPS):
        run.step()
        reference.step()
        expect_same(run, reference, scores=False)
        for i, mask in enumerate(run.pruner.masks.values()):
            assert torch.equal(mask, reference.masks[i].bool())
        masks = run.pruner.masks
        revived += sum(int((mask & ~before[name]).sum()) for name, mask in masks.items())
        before = {name: mask.clone() for name, mask in masks.items()}
    assert revived > 20, "weights that come back are what a latent weight is for"
    assert run.finish().pruned == round(4 * 256 * 0.7)
