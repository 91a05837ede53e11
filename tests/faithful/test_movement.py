"""Movement pruning beside an autograd-gated network."""

from __future__ import annotations

import pytest
import torch

import sentei
from helpers.gated import STEPS, Gated, StraightThrough, cubic, expect_same, ours, top


class Movement(Gated):
    def __init__(self, sparsity, budget, coefficient):
        super().__init__(score_lr=0.05)
        self.sparsity, self.budget, self.coefficient = sparsity, budget, coefficient
        self.pushed = coefficient / (1 + STEPS / 2000)

    def counts(self):
        """Of one site's 256 weights, four times."""
        exact = 4 * 256 * cubic(self.t, self.sparsity, 0.1, 0.2)
        each, over = divmod(round(exact), 4)
        return [each + (i < over) for i in range(4)]

    def gates(self):
        if self.budget == "global":
            joined = torch.cat([s.detach().flatten() for s in self.scores])
            pruned = round(joined.numel() * cubic(self.t, self.sparsity, 0.1, 0.2))
            masks = [m.view(16, 16) for m in top(joined, pruned).split(256)]
        else:
            masks = [top(s, n) for s, n in zip(self.scores, self.counts(), strict=True)]
        none = self.sigmas[0]
        return [StraightThrough.apply(s, none, m) for s, m in zip(self.scores, masks, strict=True)]

    def push(self):
        for score in self.scores:
            score.grad += self.pushed * score.grad.abs().mean()


@pytest.mark.parametrize(("budget", "push"), [("uniform", 0.0), ("global", 0.0), ("uniform", 3.0)])
def test_equals_an_autograd_gated_network_at_every_step(budget, push):
    run = ours(sentei.movement(0.6, budget=budget, score_lr=0.05, push=push, warmup=0.1))
    reference = Movement(0.6, budget, push)
    revived, before = 0, dict.fromkeys(run.pruner.masks, torch.tensor(True))
    for _ in range(STEPS):
        run.step()
        reference.step()
        expect_same(run, reference)
        masks = run.pruner.masks
        revived += sum(int((mask & ~before[name]).sum()) for name, mask in masks.items())
        before = {name: mask.clone() for name, mask in masks.items()}
    assert revived > 20, "weights that come back are what a latent weight is for"
    assert run.finish().pruned == round(4 * 256 * 0.6)


def test_scores_are_trained_by_gradient_times_latent_weight():
    """Adam's first moment, summed by hand: pruned weights earn a score from latent values too."""
    run = ours(sentei.movement(0.9, push=0.0, warmup=0.0, cooldown=0.5))
    moments, dead = [torch.zeros(16, 16, dtype=torch.float64) for _ in range(4)], 0
    for _ in range(STEPS):
        before = run.pruner.state_dict()["memory"]
        latents = [before[f"blocks.{i}.weight"]["latent"].clone() for i in range(4)]
        run.gradients()
        for moment, block, latent in zip(moments, run.model.blocks, latents, strict=True):
            product = block.weight.grad * latent
            dead += int((product[block.weight == 0] != 0).sum())
            moment.mul_(0.9).add_(0.1 * product)
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.count += 1
    memory = run.pruner.state_dict()["memory"]
    for i, moment in enumerate(moments):
        found = memory[f"blocks.{i}.weight"]["exp_avg"]
        torch.testing.assert_close(found, moment, rtol=0, atol=1e-14)
    assert dead > 10_000
