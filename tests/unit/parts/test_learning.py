"""The optimizer of scores and ratios is torch's AdamW under Hugging Face's linear schedule."""

from __future__ import annotations

import pytest
import torch
from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

from helpers.progress import progress
from sentei.parts.learning import Adam


def at(step, total):
    return progress(step=step, total=total)


@pytest.mark.parametrize("decay", ["linear", "none"])
@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 0), (0.1, 5), (0.33, 16), (0.98, 49)])
def test_equals_adamw_without_decay(decay, warmup, steps):
    total = 50
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(30, generator=generator, dtype=torch.float64)
    numbers = {"lr": 0.05, "eps": 1e-6}
    optimizer = Adam(warmup=warmup, decay=decay, beta1=0.8, beta2=0.95, **numbers)
    value, averages = start.clone(), [torch.zeros_like(start) for _ in range(2)]
    theirs = torch.nn.Parameter(start.clone())
    adamw = torch.optim.AdamW([theirs], betas=(0.8, 0.95), weight_decay=0.0, **numbers)
    schedule = (
        get_linear_schedule_with_warmup(adamw, steps, total)
        if decay == "linear"
        else get_constant_schedule_with_warmup(adamw, steps)
    )
    for step in range(1, total + 1):
        assert optimizer.lr_at(at(step, total)) == pytest.approx(adamw.param_groups[0]["lr"])
        gradient = torch.randn(30, generator=generator, dtype=torch.float64) * 10 ** (step % 5 - 3)
        optimizer.step_(value, gradient, *averages, at(step, total))
        theirs.grad = gradient.clone()
        adamw.step()
        schedule.step()
        torch.testing.assert_close(value, theirs.data, rtol=0, atol=1e-12)
    assert not torch.allclose(value, start, atol=0.1)


def test_learning_rate_by_hand():
    optimizer = Adam(lr=0.1, warmup=0.2)
    rates = [optimizer.lr_at(at(step, 10)) for step in range(1, 11)]
    falling = [0.1 * left / 8 for left in range(8, 0, -1)]
    assert rates == pytest.approx([0.0, 0.05, *falling])
    assert optimizer.lr_at(at(15, 10)) == 0, "past the end"


def test_a_short_training_is_stepped_faster_so_that_a_value_can_come_as_far():
    """Rates rise in a fifth and fall on a line: they add up to half of peak x steps."""
    optimizer = Adam(lr=0.01, warmup=0.2, distance=20.0)
    for total, peak in ((100, 0.2), (1000, 0.02), (2000, 0.01), (50_000, 0.01)):
        rates = [optimizer.lr_at(at(step, total)) for step in range(1, total + 1)]
        assert max(rates) == pytest.approx(peak)
        assert sum(rates) == pytest.approx(peak * total / 2, rel=0.01)
    assert Adam(lr=0.01).lr_at(at(11, 100)) == pytest.approx(0.01), "none is asked for"


@pytest.mark.parametrize("decay", ["linear", "none"])
def test_a_warm_up_that_rounds_to_all_of_training(decay):
    optimizer = Adam(lr=0.1, warmup=0.96, decay=decay)
    assert optimizer.lr_at(at(10, 10)) == pytest.approx(0.09)
    assert 0 <= optimizer.lr_at(at(11, 10)) <= 0.1, "past the end"


def test_a_piece_is_stepped_like_the_whole():
    start, gradient = torch.randn(2, 10, generator=torch.manual_seed(0))
    whole = [start.clone(), torch.zeros(10), torch.zeros(10)]
    halves = [tensor.clone() for tensor in whole]
    for step in (1, 2, 3):
        Adam().step_(whole[0], gradient, *whole[1:], at(step, 10))
        for half in (slice(0, 3), slice(3, 10)):
            value, *averages = (tensor[half] for tensor in halves)
            Adam().step_(value, gradient[half], *averages, at(step, 10))
    for a, b in zip(whole, halves, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert not torch.equal(whole[0], start)


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"warmup": 1}, {"beta2": 1}, {"eps": 0}])
def test_ranges(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Adam(**wrong)


def test_beside_a_constant_push_adam_ranks_by_the_size_of_noise():
    """Why learned scores need a penalty in short runs: without it, large and small drift alike."""
    sizes = torch.tensor([0.1, 1.0, 10.0]).repeat_interleave(2000)
    generator = torch.Generator().manual_seed(0)
    scores = {}
    for push in (0.0, 1.0):
        score, exp_avg, exp_avg_sq = (torch.zeros_like(sizes) for _ in range(3))
        for step in range(1, 301):
            gradient = push + sizes * torch.randn(sizes.shape, generator=generator)
            Adam().step_(score, gradient, exp_avg, exp_avg_sq, at(step, 300))
        scores[push] = score.view(3, -1)
    means, spread = scores[0.0].mean(1), scores[0.0].std(1)
    torch.testing.assert_close(means, torch.zeros(3), rtol=0, atol=0.02)
    torch.testing.assert_close(spread, spread[:1].expand(3), rtol=0.1, atol=0)
    low, middle, high = scores[1.0].mean(1).tolist()
    assert low < 1.2 * middle < 0 and middle < 3 * high < 0
