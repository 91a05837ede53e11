"""Wanda, beside numbers by hand and the order of operations of its authors' code, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sentei
from sentei import serialization
from sentei.testing import Training


class Layer(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
        self.linear.weight.data.copy_(weight)

    def forward(self, x):
        return self.linear(x)


def one_layer(weight, x, **settings):
    model = Layer(torch.as_tensor(weight))
    recipe = sentei.wanda(0.5, scope={"include": ["linear.weight"]}, **settings)
    sentei.one_shot(model, recipe, [x])
    return model.linear.weight.detach()


WEIGHT = torch.tensor([[4.0, 0, 1, -1], [3, -2, -1, -3], [-3, 1, 0, 2]])
NORMS = torch.tensor([1.0, 2, 8, 3])
"""Of the inputs: one token that holds them."""


def test_by_hand():
    """|W| ||X|| is (4 0 8 3), (3 4 8 9), (3 2 0 6): the two largest of every row stay."""
    pruned = one_layer(WEIGHT, NORMS[None])
    assert pruned.tolist() == [[4, 0, 1, 0], [0, 0, -1, -3], [-3, 0, 0, 2]]


def test_by_hand_over_the_matrix():
    """The six largest of 4 0 8 3 3 4 8 9 3 2 0 6, the first of the ties of 3 going first."""
    pruned = one_layer(WEIGHT, NORMS[None], budget="uniform")
    assert pruned.tolist() == [[4, 0, 1, 0], [0, -2, -1, -3], [0, 0, 0, 2]]


def authors(weight, samples, sparsity, n_m=None):
    """``scaler_row`` as it is summed over samples, and the mask by a stable sort of every row."""
    scaler, nsamples = torch.zeros(weight.shape[1], dtype=weight.dtype), 0
    for sample in samples:
        scaler *= nsamples / (nsamples + 1)
        nsamples += 1
        scaler += torch.norm(sample.T, p=2, dim=1) ** 2 / nsamples
    metric = weight.abs() * torch.sqrt(scaler.reshape(1, -1))
    mask = torch.zeros_like(metric, dtype=torch.bool)
    if n_m is None:
        order = torch.sort(metric, dim=-1, stable=True)[1]
        lowest = order[:, : int(weight.shape[1] * sparsity)]
        return mask.scatter_(1, lowest, True)
    keep, of = n_m
    for start in range(0, weight.shape[1], of):
        group = metric[:, start : start + of]
        lowest = start + torch.topk(group, of - keep, dim=1, largest=False)[1]
        mask.scatter_(1, lowest, True)
    return mask


@pytest.mark.parametrize(("sparsity", "pattern"), [(0.25, None), (0.5, None), (0.5, (2, 4))])
def test_the_authors_code(sparsity, pattern):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 32, generator=generator, dtype=torch.float64)
    scale = torch.rand(32, generator=generator, dtype=torch.float64) * 3
    samples = list(torch.randn(6, 20, 32, generator=generator, dtype=torch.float64) * scale)
    model = Layer(weight)
    shape = "{}:{}".format(*pattern) if pattern else "unstructured"
    recipe = sentei.wanda(sparsity, pattern=shape, scope={"include": ["linear.weight"]})
    sentei.one_shot(model, recipe, samples)
    mask = authors(weight, samples, sparsity, pattern)
    assert torch.equal(model.linear.weight == 0, mask)
    assert torch.equal(model.linear.weight[~mask], weight[~mask])


def test_in_training_by_the_inputs_of_the_steps_before():
    """Every decision of the ramp ranks by inputs summed here, with a memory that fades."""
    recipe = serialization.override(
        sentei.wanda(0.75), ["schedule.every=4", "score.inputs.steps=2", "score.inputs.beta=0.5"]
    )
    run = Training(recipe, dtype=torch.float64)
    name, layer = "blocks.2.weight", run.model.blocks[2]
    seen, checked = [], 0
    layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    squares, tokens = torch.zeros(16, dtype=torch.float64), 0.0
    for step in range(1, 41):
        run.step()
        if not run.pruner.updates or run.pruner.updates[-1].step != step:
            continue
        if step <= 24:  # the end of the ramp
            for x in seen[-2:]:
                squares, tokens = squares + x.square().sum(0), tokens + len(x)
        found = worths(run)[name]
        torch.testing.assert_close(found, (squares / tokens).sqrt())
        squares, tokens = squares * 0.5, tokens * 0.5
        kept = run.pruner.masks[name]
        assert (kept.sum(1).max() - kept.sum(1).min()) <= 1
        checked += 1
    assert checked == 6


def worths(run):
    return {site.name: observed.worth for site, observed in run.pruner._state.inputs.items()}
