"""The mixture-Gaussian prior, its gradient aside (tests/faithful), and sparsity in equal steps."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.progress import progress
from sentei.methods.mgpp import EqualSteps, MixtureGaussian
from sentei.parts.penalties import Penalty
from sentei.parts.schedule import Schedule


@pytest.mark.parametrize("until", ["ramp", "end"])
def test_the_prior_acts_up_to_the_last_step_of_the_ramp(until):
    prior = MixtureGaussian(until=until, examples=10)

    def acts(ramp):
        gradient, weight = torch.zeros(2), torch.tensor([0.1, -1e-5])
        prior.add_(gradient, weight, progress(ramp=ramp), torch.empty(2))
        return bool(gradient.all())

    assert [acts(ramp) for ramp in (-2.0, 0.0, 1.0)] == [True] * 3
    assert [acts(ramp) for ramp in (1.01, 4.0)] == [until == "end"] * 2


def test_the_prior_adds_to_what_is_there():
    prior, weight = MixtureGaussian(examples=10), torch.tensor([0.5, -0.25])
    gradient = torch.tensor([1.0, 2.0])
    prior.add_(gradient, weight, progress(), torch.empty(2))
    assert gradient.tolist() == pytest.approx([1 + 0.5 / 0.5, 2 - 0.25 / 0.5])
    assert weight.tolist() == [0.5, -0.25]


def test_the_number_of_examples_comes_from_the_data_unless_it_is_set():
    assert MixtureGaussian().with_examples(7).examples == 7
    assert MixtureGaussian(examples=3).with_examples(7).examples == 3


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (MixtureGaussian(), r"mixture_gaussian needs the number of training examples: pass.*exam"),
        (MixtureGaussian(spike=0.1, slab=0.05, examples=1), r"spike=0\.1 must be below slab=0\.05"),
        (MixtureGaussian(spike=0.05, slab=0.05, examples=1), "must be below"),
    ],
)
def test_a_prior_that_cannot_be(prior, message):
    with pytest.raises(ValueError, match=message):
        prior.check()


def test_kinds():
    assert Penalty.model_validate("mixture_gaussian") == MixtureGaussian()


# ---------------------------------------------------------------------------------- equal steps


def updates_of(schedule, total):
    return {
        step: schedule.at(step, total)
        for step in range(1, total + 1)
        if schedule.is_update(step, total)
    }


def test_equal_steps_by_hand():
    schedule = EqualSteps(sparsity=0.8, rises=4, warmup=0.1, cooldown=0.1)
    rises = {10: 0.2, 36: 0.4, 62: 0.6, 88: 0.8}  # every floor(80 / 3) steps
    assert updates_of(schedule, 100) == pytest.approx(rises | {90: 0.8, 100: 0.8})
    assert [schedule.at(step, 100) for step in (0, 9, 35, 61, 500)] == pytest.approx(
        [0, 0, 0.2, 0.4, 0.8]
    )
    assert [schedule.ramp(step, 100) for step in (2, 10, 50, 90, 98)] == pytest.approx(
        [-0.1, 0, 0.5, 1, 1.1]
    )
    assert schedule.first_update(100) == 10


def test_equal_steps_as_the_authors_config_has_them():
    """QNLI, 10 epochs: rises of 0.05 from step int(0.1 T) on, counted from 0, to int(0.9 T)."""
    total, start, end = 32740, 3274, 29466
    rises = [start + 1 + 1746 * number for number in range(16)]  # (29466 - 3274) // 15 = 1746
    schedule = EqualSteps(sparsity=0.8, rises=16, warmup=3275 / total, cooldown=3273 / total)
    found = updates_of(schedule, total)
    assert list(found) == [*rises, end + 1, total] and rises[-1] == 29465
    assert list(found.values()) == pytest.approx([0.05 * n for n in range(1, 17)] + [0.8] * 2)


@given(
    rises=st.integers(1, 40),
    warmup=st.floats(0, 0.6),
    cooldown=st.floats(0, 0.6),
    total=st.integers(2, 300),
    sparsity=st.floats(0, 0.99),
)
def test_equal_steps_rise_evenly(rises, warmup, cooldown, total, sparsity):
    schedule = EqualSteps(sparsity=sparsity, rises=rises, warmup=warmup, cooldown=cooldown)
    try:
        schedule.check(total)
    except ValueError:
        start = max(round(warmup * total), 1)
        assert total - round(cooldown * total) - start < max(rises - 1, 1)
        return
    found = updates_of(schedule, total)
    steps, sparsities = list(found), list(found.values())
    rising = steps[:rises]
    assert len({b - a for a, b in pairwise(rising)}) <= 1
    heights = [b - a for a, b in pairwise([0.0, *sparsities[:rises]])]
    assert heights == pytest.approx([sparsity / rises] * rises, abs=1e-12)
    assert set(sparsities[rises - 1 :]) == {sparsity} and steps[-1] == total
    assert total - round(cooldown * total) in steps
    # Between decisions nothing new is asked for.
    asked = [schedule.at(step, total) for step in range(total + 1)]
    risen = [step for step in range(1, total + 1) if asked[step] > asked[step - 1]]
    assert set(risen) <= set(steps) and asked[0] == 0


@pytest.mark.parametrize(
    ("schedule", "total", "left"),
    [
        (EqualSteps(sparsity=0.5, rises=16), 15, 12),
        (EqualSteps(sparsity=0.5, rises=1, warmup=0.5, cooldown=0.5), 10, 1),
        (EqualSteps(sparsity=0.5, rises=2, warmup=0.9, cooldown=0.9), 10, 0),
    ],
)
def test_equal_steps_need_room(schedule, total, left):
    message = rf"schedule\.rises={schedule.rises}: .* leave {left} of {total} training steps"
    with pytest.raises(ValueError, match=message):
        schedule.check(total)


def test_equal_steps_by_name():
    short = {"kind": "equal_steps", "sparsity": 0.5, "rises": 5}
    assert Schedule.model_validate(short) == EqualSteps(sparsity=0.5, rises=5)
