"""Schedules: their ends, their steps, and what they refuse."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from sentei.parts.schedule import Constant, Cubic, Schedule


@st.composite
def runs(draw):
    schedule = Cubic(
        sparsity=draw(st.floats(0, 0.999)),
        warmup=draw(st.floats(0, 0.6)),
        cooldown=draw(st.floats(0, 0.6)),
        every=draw(st.integers(1, 20)),
        cooldown_every=draw(st.integers(0, 20)),
        offset=draw(st.integers(0, 25)),
        initial=draw(st.one_of(st.just(0.0), st.floats(0, 0.999))),
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
    sparsities = [schedule.at(step, total) for step in range(total + 1)]
    assert sparsities[0] == 0 and sparsities[-1] == schedule.sparsity
    assert all(a <= b for a, b in pairwise(sparsities))
    assert schedule.at(total + 50, total) == schedule.sparsity


@given(runs())
def test_decisions(run):
    schedule, total = run
    updates = [step for step in range(1, total + 1) if schedule.is_update(step, total)]
    start = round(schedule.warmup * total)
    end = total - round(schedule.cooldown * total)
    assert updates[0] == schedule.first_update(total)
    jump = [start] if schedule.initial and start else []
    assert [step for step in updates if step <= start] == jump, "the warm-up is dense"
    assert updates[-1] == total, "the last step decides"
    ramp = [step for step in updates if start < step <= end]
    grid = [s for s in range(start + 1, end + 1) if (s - schedule.offset) % schedule.every == 0]
    ends = {total} if end == total else set()
    if schedule.cooldown_every == 0:
        ends.add(end)
    assert grid and ramp == sorted({*grid, *ends})
    after = [step for step in updates if end < step < total]
    if schedule.cooldown_every:
        assert after == list(range(end + 1, total, schedule.cooldown_every))
    else:
        assert after == []


@given(runs())
def test_ramp_is_a_line_between_the_ends(run):
    schedule, total = run
    start = round(schedule.warmup * total)
    end = total - round(schedule.cooldown * total)
    assert schedule.ramp(start, total) == 0 and schedule.ramp(end, total) == 1
    assert schedule.ramp(start - 1, total) < 0 and schedule.ramp(end + 1, total) > 1
    assert schedule.ramp(2 * end - start, total) == pytest.approx(2)


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


def test_one_decision_in_the_cool_down_is_at_the_end_of_the_ramp():
    schedule = Cubic(sparsity=0.8, warmup=0.1, cooldown=0.4, every=5, cooldown_every=0)
    updates = [step for step in range(1, 42) if schedule.is_update(step, 41)]
    assert updates == [5, 10, 15, 20, 25, 41]  # the ramp is 5 to 25: here both coincide
    schedule = schedule.model_copy(update={"every": 7})
    updates = [step for step in range(1, 42) if schedule.is_update(step, 41)]
    assert updates == [7, 14, 21, 25, 41]


def test_a_first_jump_by_hand():
    schedule = Cubic(sparsity=0.9, warmup=0.1, cooldown=0.1, every=10, offset=1, initial=0.3)
    updates = [step for step in range(1, 101) if schedule.is_update(step, 100)]
    assert updates[:4] == [10, 11, 21, 31], "the last step of the warm-up, then the grid from 0"
    assert [schedule.at(step, 100) for step in (0, 9, 10)] == [0, 0, pytest.approx(0.3)]
    assert schedule.at(50, 100) == pytest.approx(0.9 - 0.6 * 0.5**3)
    assert schedule.at(90, 100) == schedule.at(100, 100) == 0.9


def test_a_jump_never_passes_the_target():
    schedule = Cubic(sparsity=0.2, initial=0.5, warmup=0.1)
    assert {schedule.at(step, 100) for step in range(10, 101)} == {0.2}
    idle = Cubic(sparsity=0.0, initial=0.5, warmup=0.1)
    assert {idle.at(step, 100) for step in range(101)} == {0.0}


def test_without_warm_up_the_jump_waits_for_the_first_decision():
    schedule = Cubic(sparsity=0.8, initial=0.4, warmup=0.0, every=5)
    assert schedule.first_update(40) == 5 and schedule.at(0, 40) == 0
    assert schedule.at(1, 40) > 0.4


def test_constant():
    schedule = Constant(sparsity=0.7, warmup=0.25, every=3)
    assert [schedule.at(step, 20) for step in (0, 4, 5, 20, 30)] == [0, 0, 0.7, 0.7, 0.7]
    updates = [step for step in range(1, 21) if schedule.is_update(step, 20)]
    assert updates == [8, 11, 14, 17, 20]
    assert [schedule.ramp(step, 20) for step in (5, 20)] == [0, 1]
    at_once = Constant(sparsity=0.7)
    assert [step for step in range(1, 4) if at_once.is_update(step, 3)] == [1, 2, 3]
    assert at_once.at(0, 3) == 0.7
    schedule.check(20)
    with pytest.raises(ValueError, match=r"schedule\.warmup=0\.9 leaves no step of 4"):
        Constant(sparsity=0.7, warmup=0.9).check(4)


def test_kinds():
    assert set(Schedule.kinds()) >= {"cubic", "constant"}
    constant = Schedule.model_validate({"kind": "constant", "sparsity": 0.5, "every": 7})
    assert constant == Constant(sparsity=0.5, every=7)


def test_cubic_is_found_by_its_kind():
    assert Schedule.model_validate({"kind": "cubic", "sparsity": 0.5}) == Cubic(sparsity=0.5)
