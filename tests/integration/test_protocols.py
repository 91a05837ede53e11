"""Protocols of benchmarks can be planned, and what was measured is what they ask for today."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import plans, quality

from sentei import serialization
from sentei.compare.plan import load
from sentei.compare.runs import Runs
from sentei.run.recipes import make_recipe

RUN = "runs/stsb/platon/0.9/seed1"


def planned(name: str) -> Runs:
    """The runs of a protocol, as if its data were there."""
    plan = plans.protocol(name)
    plan["settings"].setdefault("model", "demo")
    for task in plan["tasks"].values():
        for name in ("corpus", "start"):  # the benchmark's own
            task.pop(name, None)
        task |= {"train": "train.jsonl", "eval": "eval.jsonl"}
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


@pytest.mark.parametrize("name", ["structured", "tasks"])
def test_other_protocols_can_be_planned(name):
    runs = planned(name)
    recipes = {
        serialization.load(run.settings.recipe) for run in runs.values() if run.role == "pruned"
    }
    assert len(recipes) == 4  # two methods at two sparsities


def test_heads_and_neurons_are_pruned_as_the_option_says():
    changes = ["budget=uniform", "budget.multiple=2"]
    expected = make_recipe("platon", 0.5, None, changes, pattern="head+neuron")
    assert planned("structured")[
        "runs/sst2/platon/0.5/seed42"
    ].settings.recipe == serialization.to_dict(expected)
