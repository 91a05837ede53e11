"""Stages: their ends and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentei.methods.knowledge_aware import Stages
from sentei.parts.schedule import Schedule


@given(
    stages=st.integers(1, 60),
    warmup=st.floats(0, 0.9),
    cooldown=st.floats(0, 0.9),
    total=st.integers(1, 300),
    sparsity=st.floats(0, 0.99),
)
def test_stages_end_evenly_and_each_decides(stages, warmup, cooldown, total, sparsity):
    schedule = Stages(sparsity=sparsity, stages=stages, warmup=warmup, cooldown=cooldown)
    start, end = round(warmup * total), total - round(cooldown * total)
    room = max(end - start, 0)
    if room < stages:
        with pytest.raises(ValueError, match=rf"schedule\.stages={stages}: more than the {room}"):
            schedule.check(total)
        return
    schedule.check(total)
    updates = [step for step in range(1, total + 1) if schedule.is_update(step, total)]
    assert len(updates) == stages and updates[-1] == end
    for number, step in enumerate(updates, start=1):
        assert abs(step - start - room * number / stages) < 1
        expected = sparsity * (1 - (1 - number / stages) ** 3)
        assert schedule.at(step, total) == pytest.approx(expected)
        assert schedule.at(step - 1, total) <= schedule.at(step, total)
    assert schedule.at(0, total) == schedule.at(start, total) == 0
    assert schedule.at(total, total) == schedule.at(total + 9, total) == sparsity
    assert schedule.ramp(end, total) == 1 and schedule.ramp(start, total) == 0


def test_kinds():
    stages = Schedule.model_validate({"kind": "stages", "sparsity": 0.5, "stages": 7})
    assert stages == Stages(sparsity=0.5, stages=7)
