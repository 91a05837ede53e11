"""The cubic schedule: its ends, its steps, and what it refuses."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from sentei.parts.schedule import Cubic, Schedule


@st.composite
def runs(draw):
    schedule = Cubic(
        sparsity=draw(st.floats(0, 0.999)),
        warmup=draw(st.floats(0, 0.6)),
        cooldown=draw(st.floats(0, 0.6)),
        every=draw(st.integers(1, 20)),
        cooldown_every=draw(st.integers(0, 20)),
    )
    total = draw(st.integers(1, 300))
    try:
        schedule.check(total)
    except ValueError:
        assume(False)
    return schedule, total


@given(runs())
def test_never_falls_from_zero_to_the_target(run):
    schedule, total = run
    asked = [schedule.at(step, total) for step in range(total + 1)]
    assert asked[0] == 0 and asked[-1] == schedule.sparsity
    assert all(a <= b for a, b in pairwise(asked))
    assert schedule.at(total + 50, total) == schedule.sparsity


@given(runs())
def test_decisions(run):
    schedule, total = run
    updates = [step for step in range(1, total + 1) if schedule.is_update(step, total)]
    assert updates[0] == schedule.first_update(total)
    assert updates[0] > round(schedule.warmup * total), "the warm-up is dense"
    assert updates[-1] == total, "the last step decides"
    end = total - round(schedule.cooldown * total)
    ramp = [step for step in updates if step <= end]
    assert ramp and all(step % schedule.every == 0 or step == total for step in ramp)
    after = [step for step in updates if end < step < total]
    if schedule.cooldown_every:
        assert after == list(range(end + 1, total, schedule.cooldown_every))
    else:
        assert after == [end + 1][: total - end - 1]


def test_steps_by_hand():
    schedule = Cubic(sparsity=0.8, warmup=0.1, cooldown=0.4, every=5, cooldown_every=3)
    updates = [step for step in range(1, 41) if schedule.is_update(step, 40)]
    assert updates == [5, 10, 15, 20, 25, 28, 31, 34, 37, 40]
    assert schedule.at(4, 40) == 0
    assert schedule.at(14, 40) == pytest.approx(0.8 * (1 - 0.5**3))
    assert schedule.at(24, 40) == 0.8


@pytest.mark.parametrize(
    ("warmup", "cooldown", "every", "total", "message"),
    [
        (0.5, 0.5, 1, 100, r"warm-up of 0\.5 and a cool-down of 0\.5 leave none of the 100"),
        (0.6, 0.6, 1, 100, "their sum must be below 1"),
        (0.1, 0.4, 10, 12, r"schedule\.every=10: the ramp, steps 2 to 7 of 12, holds no multiple"),
        (0.1, 0.4, 10, 12, "at most 6"),
        (0.6, 0.0, 1, 1, "leave none of the 1"),
    ],
)
def test_what_does_not_fit(warmup, cooldown, every, total, message):
    schedule = Cubic(sparsity=0.5, warmup=warmup, cooldown=cooldown, every=every)
    with pytest.raises(ValueError, match=message):
        schedule.check(total)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_sparsity_is_a_fraction_below_one(sparsity):
    with pytest.raises(ValidationError, match="sparsity"):
        Cubic(sparsity=sparsity)


def test_cubic_is_found_by_its_kind():
    assert Schedule.model_validate({"kind": "cubic", "sparsity": 0.5}) == Cubic(sparsity=0.5)
