"""Least squares, beside a direct solve of every row in float64."""

from __future__ import annotations

import pytest
import torch

from sentei.parts import reconstruction
from sentei.parts.reconstruction import Inputs, LeastSquares


def problem(rows=7, inputs=24, tokens=400, density=0.4, seed=0):
    """Weights, start, mask and the products of correlated inputs, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mixing = normal(inputs, inputs)
    x = normal(tokens, inputs) @ mixing + 1
    keep = torch.rand(rows, inputs, generator=generator) < density
    keep[0], keep[1] = False, True
    wanted = normal(rows, inputs)
    return wanted, wanted * keep, keep, x.T @ x


def direct(part, wanted, start, keep, gram):
    """The minimum of every row, from the equations of its kept entries alone."""
    damping = part.damping * gram.diagonal().mean()
    solved = torch.zeros_like(start)
    for row, kept in enumerate(keep):
        left = gram[kept][:, kept] + damping * torch.eye(int(kept.sum()), dtype=gram.dtype)
        right = gram[kept] @ wanted[row] + damping * start[row, kept]
        solved[row, kept] = torch.linalg.solve(left, right)
    return solved


def error(solved, wanted, gram):
    """The squared error of each row's outputs."""
    missing = wanted - solved
    return ((missing @ gram) * missing).sum(1)


@pytest.mark.parametrize("density", [0.05, 0.4, 0.9])
def test_enough_iterations_reach_the_minimum(density):
    part = LeastSquares(iterations=200, tolerance=0)
    arguments = problem(density=density)
    solved, minimum = part.solve(*arguments), direct(part, *arguments)
    assert (solved - minimum).norm() <= 1e-6 * minimum.norm()


def test_the_start_counts_where_it_is_not_what_was_there():
    """Weights that a latent mask has taken back: they were not part of what is wanted."""
    wanted, _, keep, gram = problem()
    start = torch.where(keep, 2 * wanted, 0)
    part = LeastSquares(iterations=200, tolerance=0)
    solved = part.solve(wanted * (torch.arange(24) % 2), start, keep, gram)
    minimum = direct(part, wanted * (torch.arange(24) % 2), start, keep, gram)
    assert (solved - minimum).norm() <= 1e-6 * minimum.norm()


@pytest.mark.parametrize("iterations", [1, 2, 3, 8])
@pytest.mark.parametrize("tolerance", [0, 0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_row_does_worse_than_before(iterations, tolerance, dtype):
    for seed in range(5):
        wanted, start, keep, gram = (
            t if t.dtype == torch.bool else t.to(dtype) for t in problem(seed=seed)
        )
        solved = LeastSquares(iterations=iterations, tolerance=tolerance).solve(
            wanted, start, keep, gram
        )
        before, after = (
            error(one.double(), wanted.double(), gram.double()) for one in (start, solved)
        )
        assert (after <= before * (1 + 1e-5)).all()
        assert after.sum() < 0.95 * before.sum()
        assert (solved[~keep] == 0).all()


@pytest.mark.parametrize("iterations", [8, 30, 100])
@pytest.mark.parametrize("tokens", [14, 64, 3000])
def test_no_row_does_worse_than_before_with_rounded_products(iterations, tokens, monkeypatch):
    """Inputs of many sizes about a common mean: without the last product some rows are millions of
    times worse than zeroed after 100 iterations."""
    monkeypatch.setattr(reconstruction, "multiplies_bf16", lambda device: True)
    inputs = 384
    for seed in range(2):
        torch.manual_seed(seed)
        sizes = 0.1 * torch.logspace(0, 2, inputs)[torch.randperm(inputs)]
        x = torch.randn(tokens, inputs) * sizes + 3 * torch.randn(inputs)
        wanted, gram = torch.randn(50, inputs), x.T @ x / tokens
        keep = wanted.abs() > 1.6
        part = LeastSquares(iterations=iterations, tolerance=0)
        solved = part.solve(wanted, wanted * keep, keep, gram)
        before, after = (
            ((wanted - one).double() @ x.T.double()).square().sum(1)
            for one in (wanted * keep, solved)
        )
        assert (after <= before).all()
        assert after.sum() < 0.8 * before.sum()


def test_rows_without_a_hole_or_without_a_weight_stay():
    wanted, start, keep, gram = problem()
    solved = LeastSquares().solve(wanted, start, keep, gram)
    assert torch.equal(solved[0], torch.zeros_like(solved[0]))
    assert torch.equal(solved[1], wanted[1])


def test_iterations_beyond_the_end_do_no_harm():
    """Rows end by themselves, each where its own products say no more."""
    for dtype in (torch.float32, torch.float64):
        wanted, start, keep, gram = (
            t if t.dtype == torch.bool else t.to(dtype) for t in problem(density=0.1)
        )
        few, many = (LeastSquares(iterations=n, tolerance=0) for n in (24, 500))
        once, on = (p.solve(wanted, start, keep, gram).double() for p in (few, many))
        before, after = (error(one, wanted.double(), gram.double()).sum() for one in (once, on))
        assert after <= before * 1.01


def test_an_error_that_does_not_count_is_left_to_training():
    wanted, _, keep, gram = problem(density=0.5)
    wanted = torch.where(keep, wanted, 0.001 * wanted)
    start = wanted * keep
    assert LeastSquares().solve(wanted, start, keep, gram) is start


def test_inputs_that_are_always_zero_change_nothing():
    wanted, start, keep, gram = problem()
    assert torch.equal(LeastSquares().solve(wanted, start, keep, torch.zeros_like(gram)), start)


def test_blocks_are_equal_and_cover_every_input():
    assert Inputs(width=4).blocks(4) == [(0, 4)]
    assert Inputs(width=1536).blocks(3072) == [(0, 1536), (1536, 3072)]
    assert Inputs(width=4).blocks(10) == [(0, 3), (3, 6), (6, 10)]


def test_the_first_decision_of_each_part_of_the_ramp_is_followed_by_one():
    part = LeastSquares(decisions=4)
    assert [part.slot(ramp) for ramp in (-0.1, 0, 0.2, 0.3, 0.99, 1, 1.7)] == [-1, 0, 0, 1, 3, 4, 4]
