"""The zeros that a model has: what they are worth, and how many there must be.

What becomes of them in training, and the parts that are refused: see tests/faithful.
"""

from __future__ import annotations

import pytest
import torch

from sentei.methods.frozen_mask import Existing, Nonzero
from sentei.parts.schedule import Schedule
from sentei.parts.scores import Score


def test_a_weight_is_worth_whether_it_was_there():
    weight = torch.tensor([0.5, 0.0, -0.0, -1e-30])
    memory = {"nonzero": torch.zeros(4)}
    Nonzero().start_(memory, weight, 0)
    weight.fill_(7.0)
    assert Nonzero().value(memory, weight, torch.empty(4)).tolist() == [1, 0, 0, 1]
    assert not Nonzero().changes_at(3) and not Nonzero().observes


@pytest.mark.parametrize("least", [None, 0.0, 0.25])
def test_the_models_zeros_are_the_sparsity(least):
    schedule = Existing(sparsity=least).resolve(3, 12)
    assert schedule == Existing(sparsity=0.25) and Existing.from_model
    assert [schedule.at(step, 20) for step in (0, 1, 20, 30)] == [0.25] * 4
    assert [step for step in range(1, 21) if schedule.is_update(step, 20)] == [1, 20]
    assert all(schedule.ramp(step, 20) > 1 for step in (1, 20))
    schedule.check(1)


@pytest.mark.parametrize(
    ("least", "zeros", "message"),
    [
        (None, 0, r"none of the 1,200 prunable weights is zero, .* no sparsity to keep"),
        (0.5, 599, r"schedule\.sparsity=0\.5: 49\.9167% of the 1,200 prunable weights"),
        (None, 1200, "all of the 1,200 prunable weights are zero"),
    ],
)
def test_a_model_with_other_zeros_is_refused(least, zeros, message):
    with pytest.raises(ValueError, match=message):
        Existing(sparsity=least).resolve(zeros, 1200)


def test_kinds():
    assert Score.model_validate("nonzero") == Nonzero()
    assert Schedule.model_validate("existing") == Existing()
