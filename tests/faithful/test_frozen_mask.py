"""Frozen mask: a reference loop that multiplies by the mask, bit for bit; and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import sentei
from sentei import serialization
from sentei.testing import STEPS, Network, Training, make_sparse_

RECIPE = sentei.frozen_mask()


def sparse(sparsity=0.6) -> Network:
    torch.manual_seed(0)
    model = Network()
    make_sparse_(model, sentei.frozen_mask(sparsity))
    return model


def zeros(model) -> dict[str, torch.Tensor]:
    return {name: p.detach() == 0 for name, p in model.named_parameters()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def train(model, optimizer, steps, apply=lambda: None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(8, 8, generator=generator)
        nn.functional.mse_loss(model(x), x.square().mean(-1, keepdim=True)).backward()
        optimizer.step()
        optimizer.zero_grad()
        apply()


def pruned_with(model, recipe=RECIPE, steps=STEPS, **options):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    pruner = sentei.Pruner(model, recipe, total_steps=steps)
    pruner.attach(optimizer)
    train(model, optimizer, steps, **options)
    return pruner


def test_it_is_the_loop_that_multiplies_by_the_mask():
    model, reference = sparse(), sparse()
    masks = [(p, (p != 0).float()) for p in reference.blocks.parameters() if p.ndim == 2]
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-2, weight_decay=0.1)

    @torch.no_grad()
    def multiply():
        for parameter, mask in masks:
            parameter.mul_(mask)

    train(reference, optimizer, STEPS, multiply)
    pruner = pruned_with(model)
    assert same(dict(model.named_parameters()), dict(reference.named_parameters()))
    report = pruner.finish()
    assert report.pruned == round(0.6 * 1024) and report.target == report.pruned / 1024
    assert report.recipe["schedule"] == {"kind": "existing", "sparsity": 614 / 1024}


def test_zeros_stay_and_nothing_else_is_pruned_at_any_step():
    model = sparse()
    before, start = zeros(model), copy.deepcopy(model.state_dict())
    seen = []
    pruner = pruned_with(model, apply=lambda: seen.append(same(zeros(model), before)))
    assert seen == [True] * STEPS
    assert pruner.sparsity == pruner.target == 614 / 1024
    moved = [not torch.equal(p, start[name]) for name, p in model.named_parameters()]
    assert all(moved)


def test_zeros_outside_the_scope_may_move():
    model = sparse()
    nn.init.zeros_(model.output.weight)
    nn.init.zeros_(model.blocks[0].bias)
    pruned_with(model)
    assert model.output.weight.all() and model.blocks[0].bias.all()
    nn.init.zeros_(model.blocks[0].bias)
    pruned_with(model, sentei.frozen_mask(scope={"biases": True}))
    assert not model.blocks[0].bias.any()


def test_a_kept_weight_that_comes_to_zero_is_free_to_leave_it():
    model = sparse()
    pruner = pruned_with(model, steps=3)
    keep = pruner.masks["blocks.0.weight"].clone()
    place = tuple(keep.nonzero()[0])
    with torch.no_grad():
        model.blocks[0].weight[place] = 0.0
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 1)
    assert model.blocks[0].weight[place] != 0

    # A run that resumes from such a step keeps the zeros of its start, not of its checkpoint.
    model = sparse()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = sentei.Pruner(model, RECIPE, total_steps=STEPS)
    first.attach(optimizer)
    train(model, optimizer, 10)
    with torch.no_grad():
        model.blocks[1].weight[tuple(first.masks["blocks.1.weight"].nonzero()[0])] = 0.0
    second = sentei.Pruner(model, RECIPE, total_steps=STEPS)
    assert second.recipe != first.recipe
    second.load_state_dict(first.state_dict())
    assert second.recipe == first.recipe and same(second.masks, first.masks)
    first.detach()
    second.attach(optimizer)
    train(model, optimizer, STEPS - 10)
    assert second.finish().pruned == 614


@pytest.mark.parametrize(
    ("model", "recipe", "told"),
    [
        (Network(), RECIPE, "none of the 1,024 prunable weights is zero"),
        (sparse(0.5), sentei.frozen_mask(0.9), r"50\.0000% of the 1,024 prunable weights"),
        (sparse(0.9999), RECIPE, "nothing is left to train"),
    ],
    ids=["dense", "not sparse enough", "all zeros"],
)
def test_refused(model, recipe, told):
    with pytest.raises(ValueError, match=told):
        sentei.Pruner(model, recipe, total_steps=10)


def test_the_sparsity_asked_for_is_the_least():
    pruner = pruned_with(sparse(0.6), sentei.frozen_mask(0.5))
    assert pruner.finish().pruned == 614


def test_weights_loaded_after_the_pruner_was_made_are_refused():
    model = sparse(0.6)
    pruner = sentei.Pruner(model, RECIPE, total_steps=10)
    model.load_state_dict(sparse(0.7).state_dict())
    with pytest.raises(ValueError, match="load the model's weights first"):
        pruner.attach(torch.optim.SGD(model.parameters()))


@pytest.mark.parametrize(
    "setting",
    [
        "budget=uniform",
        "budget.compat=true",
        "mask.hold=false",
        "mask=straight_through",
        "schedule={kind: cubic, sparsity: 0.5}",
        "pattern=row",
    ],
)
def test_parts_that_would_prune_more_are_refused(setting):
    with pytest.raises(ValueError, match=f"use {setting.partition('=')[0].partition('.')[0]}: "):
        serialization.override(sentei.frozen_mask(0.5), [setting])


def test_masks_stand_with_any_score_where_the_schedule_finds_the_sparsity():
    """``schedule: found`` is a part like any: it keeps a sparsity, another score chooses where."""
    recipe = serialization.override(sentei.magnitude(0.5), ["schedule={kind: existing}"])
    training = Training(serialization.override(recipe, ["schedule.sparsity=0.5"])).run()
    assert training.finish().pruned == 512
