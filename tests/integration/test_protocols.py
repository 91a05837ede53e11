"""Protocols of benchmarks can be planned, and what was measured is what they ask for today."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import plans, quality

from sentei.compare.plan import load
from sentei.compare.runs import Runs


def planned(name: str) -> Runs:
    """The runs of a protocol, as if its data were there."""
    plan = plans.protocol(name)
    for task in plan["tasks"].values():
        task.pop("corpus", None)
        task |= {"train": "train.jsonl", "eval": "eval.jsonl", "text_column": "text"}
    return Runs(load(plan), Path("out"))


@pytest.mark.parametrize("name", quality.NAMES)
def test_no_result_is_stale(name):
    runs, lines = planned(name), quality.benchmark(name).log.lines
    assert {line["run"] for line in lines} <= set(runs)
    plans.refuse_stale(lines, runs)


def test_a_stale_result_is_refused():
    runs = planned("first")
    [line] = [one for one in quality.benchmark("first").log.lines if one["run"] == RUN]
    declared = line["declared"] | {"budget": {"kind": "uniform"}}
    with pytest.raises(ValueError, match=r"budget.kind='uniform', which is 'global' now"):
        plans.refuse_stale([line | {"declared": declared}], runs)


RUN = "runs/stsb/platon/0.9/seed1"
