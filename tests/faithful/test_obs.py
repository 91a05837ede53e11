"""Optimal brain surgeon on a layer's inputs, beside the problem that it is the answer to."""

from __future__ import annotations

import pytest
import torch

from sentei.methods.obs import BrainSurgeon


def score(weight, gram, damping=1e-12):
    part = BrainSurgeon(damping=damping)
    memory = {"worth": part.worth(gram).expand_as(weight)}
    return part.value(memory, weight, torch.empty_like(weight))


def test_by_hand():
    """G = (2 1; 1 2) has the inverse (2 -1; -1 2) / 3: w^2 is worth 3/2 of itself, not 2."""
    gram = torch.tensor([[2.0, 1], [1, 2]], dtype=torch.float64)
    weight = torch.tensor([[1.0, -2], [0, 4]], dtype=torch.float64)
    found = score(weight, gram)
    torch.testing.assert_close(found, torch.tensor([[1.5, 6], [0, 24]], dtype=torch.float64))


def inputs(seed=0, tokens=200, width=12):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=generator, dtype=torch.float64)
    return x @ torch.randn(width, width, generator=generator, dtype=torch.float64) + 0.5


@pytest.mark.parametrize("damping", [1e-9, 0.01, 0.5])
def test_what_the_outputs_lose_when_the_others_make_up_for_it(damping):
    """The minimum over the other weights, solved for each weight, of the damped squared error."""
    x = inputs()
    gram = x.T @ x / len(x)
    damped = gram + damping * gram.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    root = torch.linalg.cholesky(damped).T
    weight = torch.randn(3, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.empty_like(weight)
    for row, column in ((r, c) for r in range(3) for c in range(12)):
        others = [j for j in range(12) if j != column]
        best = torch.linalg.lstsq(root[:, others], root @ weight[row]).solution
        expected[row, column] = (root @ weight[row] - root[:, others] @ best).square().sum()
    torch.testing.assert_close(score(weight, gram, damping), expected, rtol=1e-6, atol=1e-9)


def test_never_more_than_without_the_others():
    x = inputs(1)
    gram = x.T @ x / len(x)
    weight = torch.ones(1, 12, dtype=torch.float64)
    assert (score(weight, gram) <= gram.diagonal() * (1 + 1e-9)).all()


def test_an_input_that_another_repeats_is_worth_next_to_nothing():
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.cat([x, x[:, :1]], 1)
    worth = BrainSurgeon().worth(x.T @ x / len(x))
    assert worth[0] < 0.05 * worth[1:4].min()
    torch.testing.assert_close(worth[0], worth[4])


def test_inputs_that_are_always_zero_are_worth_least():
    x = inputs()
    x[:, 3] = 0
    worth = BrainSurgeon().worth(x.T @ x / len(x))
    assert int(worth.argmin()) == 3
    assert BrainSurgeon().worth(torch.zeros(4, 4)).max() < 1e-30


def test_too_little_damping_is_said():
    x = torch.ones(4, 6, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"score\.damping=1e-12: the products of a layer's"):
        BrainSurgeon(damping=1e-12).worth(-(x.T @ x))
