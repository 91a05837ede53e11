"""l0 regularisation, the papers', beside an autograd-gated network with the same draws."""

from __future__ import annotations

import math

import pytest
import torch

import sentei
from helpers.gated import STEPS, Gated, close, expect_same, ours


class L0(Gated):
    def __init__(self, coefficient):
        super().__init__(score_lr=0.3, initial=2.197)
        self.coefficient = coefficient
        self.noise = None

    def gates(self):
        if self.noise is None:
            s = [torch.sigmoid(score) for score in self.scores]
        else:
            logits = zip(self.scores, self.noise, strict=True)
            s = [torch.sigmoid((score + noise) / (2 / 3)) for score, noise in logits]
        return [torch.clamp(x * 1.2 - 0.1, min=0.0, max=1.0) for x in s]

    def penalty(self):
        shift = (2 / 3) * math.log(0.1 / 1.1)
        means = [torch.sigmoid(s - shift).mean() for s in self.scores]
        return self.coefficient * sum(means) / len(means)


def recipe(coefficient, **more):
    return sentei.l0(0.8, score_lr=0.3, coefficient=coefficient, follow=False, settle=None, **more)


def draws(run):
    return [memory["noise"].clone() for memory in run.pruner.state_dict()["memory"].values()]


@pytest.mark.parametrize("coefficient", [0.0, 10.0])
def test_equals_an_autograd_gated_network_at_every_step(coefficient):
    run, reference = ours(recipe(coefficient)), L0(coefficient)
    for _ in range(STEPS):
        reference.noise = draws(run)
        run.step()
        reference.step()
        reference.noise = None
        expect_same(run, reference)
    assert run.pruner.pruned > 500 if coefficient else run.pruner.pruned == 0


def test_a_training_forward_sees_the_sample():
    run, reference = ours(recipe(1.0)).run(3), L0(1.0)
    reference.noise = draws(run)
    memory = run.pruner.state_dict()["memory"]
    for i, score in enumerate(reference.scores):
        score.data.copy_(memory[f"blocks.{i}.weight"]["score"])
    run.model(run.inputs[0])
    for i, gate in enumerate(reference.gates()):
        close(run.model.blocks[i].weight, memory[f"blocks.{i}.weight"]["latent"] * gate)
        assert 0 < int((gate == 0).sum()) < gate.numel() or int((gate == 1).sum()) > 0


def test_draws_are_logistic_and_differ_by_step_site_and_seed():
    seen = []
    for seed in (0, 1):
        run = ours(recipe(1.0, seed=seed))
        for _ in range(3):
            seen += draws(run)
            run.step()
    flat = torch.stack([noise.flatten() for noise in seen])
    assert len({tuple(noise.tolist()) for noise in flat}) == 2 * 3 * 4
    u = torch.sigmoid(flat).flatten().sort().values
    steps = torch.arange(1, u.numel() + 1) / u.numel()
    assert (u - steps).abs().max() < 1.63 / math.sqrt(u.numel()), "Kolmogorov-Smirnov, 1 %"
