"""Soft movement pruning, the paper's, beside an autograd-gated network."""

from __future__ import annotations

import pytest
import torch

import sentei
from helpers.gated import STEPS, Gated, StraightThrough, cubic, expect_same, ours, top

THRESHOLD = 0.45


class SoftMovement(Gated):
    def __init__(self, coefficient, pushed=0.0):
        super().__init__(score_lr=0.05)
        self.coefficient, self.pushed = coefficient, pushed
        self.floors = 0

    def threshold(self):
        return cubic(self.t, THRESHOLD, 0.1, 0.2)

    def gates(self):
        masks = [(torch.sigmoid(s.detach()) > self.threshold()).double() for s in self.scores]
        least = int(0.005 * 256) + 1
        for i, mask in enumerate(masks):
            if mask.sum() < least:
                masks[i] = top(self.scores[i], 256 - least)
                self.floors += 1
        none = self.sigmas[0]
        return [StraightThrough.apply(s, none, m) for s, m in zip(self.scores, masks, strict=True)]

    def push(self):
        for score in self.scores:
            score.grad += self.pushed * score.grad.abs().mean()

    def penalty(self):
        strength = self.coefficient * self.threshold() / THRESHOLD
        return strength * sum(torch.sigmoid(s).mean() for s in self.scores) / len(self.scores)


@pytest.mark.parametrize("coefficient", [0.5, 100.0])
def test_equals_an_autograd_gated_network_at_every_step(coefficient):
    recipe = sentei.soft_movement(
        0.8,
        score_lr=0.05,
        distance=None,
        threshold=THRESHOLD,
        coefficient=coefficient,
        follow=False,
        settle=None,
    )
    run, reference = ours(recipe), SoftMovement(coefficient)
    counts = set()
    for _ in range(STEPS):
        run.step()
        reference.step()
        expect_same(run, reference)
        counts.add(run.pruner.pruned)
    if coefficient == 100:
        assert reference.floors > 3 and run.pruner.pruned == 4 * (256 - 2), "the floor was met"
    else:
        assert reference.floors == 0 and len(counts) > 20


def test_the_push_equals_an_autograd_gated_network_at_every_step():
    recipe = sentei.soft_movement(
        0.8,
        score_lr=0.01,
        distance=0.05 * STEPS,
        threshold=THRESHOLD,
        push=2.0,
        follow=False,
        settle=None,
    )
    run, reference = ours(recipe), SoftMovement(0.0, pushed=2.0)
    counts = set()
    for _ in range(STEPS):
        run.step()
        reference.step()
        expect_same(run, reference)
        counts.add(run.pruner.pruned)
    assert len(counts) > 15


def test_every_matrix_finds_its_own_sparsity():
    recipe = sentei.soft_movement(
        0.8, score_lr=0.05, threshold=THRESHOLD, coefficient=0.5, follow=False, settle=None
    )
    run = ours(recipe).run(STEPS)
    kept = {int(mask.sum()) for mask in run.pruner.masks.values()}
    assert len(kept) > 1
    assert [u.settled for u in run.pruner.updates] == [False] * len(run.pruner.updates)
