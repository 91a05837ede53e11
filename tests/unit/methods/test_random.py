"""Scores that are drawn."""

from __future__ import annotations

import pytest
import torch

from sentei.methods.random import Random
from sentei.parts.scores import Score


def draw(seed, number, dtype=torch.float32):
    score = Random(seed=seed)
    memory = {name: torch.zeros(4, 1000, dtype=dtype) for name in score.memory}
    score.start_(memory, torch.zeros(4, 1000), number)
    return score.value(memory, torch.ones(4, 1000), torch.empty(4, 1000))


def test_random_scores_are_drawn_by_seed_and_site():
    first = draw(1, 2)
    assert torch.equal(first, draw(1, 2))
    for other in (draw(2, 2), draw(1, 3), draw(2**32 - 1, 2)):
        assert not torch.equal(first, other)
    assert 0 <= first.min() < 0.01 and 0.99 < first.max() <= 1
    assert first.mean().item() == pytest.approx(0.5, abs=4 * 0.289 / 4000**0.5)
    state = torch.random.get_rng_state()
    draw(1, 2)
    assert torch.equal(torch.random.get_rng_state(), state), "the loop's own draws stand"
    assert not Random().changes_at(3) and not Random().observes and not Random().learned


def test_kinds():
    assert Score.model_validate({"kind": "random", "seed": 3}) == Random(seed=3)
