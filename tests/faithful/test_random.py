"""Random pruning: masks that know nothing of the training."""

from __future__ import annotations

import torch

import sentei
from sentei.testing import STEPS, Training


def masks(run):
    return {name: mask.clone() for name, mask in run.pruner.masks.items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_masks_depend_on_seed_and_step_alone():
    runs = [Training(sentei.random(0.7, seed=seed, every=4)) for seed in (3, 3, 4)]
    runs[1].targets = runs[1].targets * -7
    runs[1].optimizer.param_groups[0]["lr"] = 0.05
    differed = 0
    for _ in range(STEPS):
        for run in runs:
            run.step()
        one, same_seed, other_seed = (masks(run) for run in runs)
        assert equal(one, same_seed)
        differed += not equal(one, other_seed)
    assert differed > STEPS // 2
    assert not torch.equal(runs[0].model.blocks[0].weight, runs[1].model.blocks[0].weight)


def test_masks_are_nested_uniform_and_held():
    run = Training(sentei.random(0.7, every=4))
    before = masks(run)
    for _ in range(STEPS):
        run.step()
        now = masks(run)
        assert all(bool((before[name] | ~now[name]).all()) for name in now)
        counts = [int((~mask).sum()) for mask in now.values()]
        assert max(counts) - min(counts) <= 1
        for name, mask in now.items():
            assert torch.equal(run.model.get_parameter(name) != 0, mask)
        before = now
    assert sum(counts) == round(0.7 * 1024)


def test_the_lot_is_fair_and_differs_by_site():
    run = Training(sentei.random(0.5, every=4)).run()
    found = torch.stack([mask.flatten().double() for mask in masks(run).values()])
    correlation = torch.corrcoef(found) - torch.eye(4, dtype=torch.float64)
    assert correlation.abs().max() < 4 / 16  # four standard errors of 256 draws
    halves = found[:, :128].sum(1)
    assert bool((halves - 64).abs().max() < 4 * (256 * 0.25) ** 0.5)
