"""Engines take turns, and what they give is compared with torch fp32."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from sentei.models.outputs import outputs
from sentei.runtime.bench.as_model import AsModel
from sentei.runtime.bench.choice import Engine
from sentei.runtime.bench.contender import Contender
from sentei.runtime.bench.measure import WARM_UP, difference, measure
from sentei.runtime.bench.workloads import Workload


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=20,
        num_labels=3,
    )
    return BertForSequenceClassification(config).eval()


@pytest.fixture
def workload():
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
    return Workload(2, "data", ({"input_ids": ids, "attention_mask": mask},))


def changed(model, change):
    """An engine that gives what the model gives, with a change."""
    return Contender(
        Engine("torch", "fp32"),
        lambda inputs: {name: change(value) for name, value in outputs(model, inputs).items()},
    )


def test_outputs_of_the_model_itself_do_not_differ(model, workload):
    assert difference(model, changed(model, lambda v: v), workload) == (0.0, 0.0)


def test_differences_are_relative_and_largest(model, workload):
    logits = outputs(model, workload.passes[0])["logits"]
    relative, most = difference(model, changed(model, lambda v: v * 1.01), workload)
    assert relative == pytest.approx(0.01, rel=1e-3)
    assert most == pytest.approx(0.01 * float(logits.abs().max()), rel=1e-3)


def test_what_is_not_finite_differs_infinitely(model, workload):
    assert difference(model, changed(model, lambda v: v * math.nan), workload)[0] == math.inf


def test_hidden_states_of_padding_are_not_compared(model, workload):
    mask = workload.passes[0]["attention_mask"].bool()

    def spoilt(value):
        return torch.where(mask[..., None], value, 7.0) if value.dim() == 3 else value

    engine = changed(model.bert, spoilt)
    assert difference(model.bert, engine, workload) == (0.0, 0.0)


def test_engines_take_turns_over_all_workloads(model, workload):
    turns = []

    def noted(name):
        def engine(inputs):
            turns.append(name)
            return outputs(model, inputs)

        return Contender(Engine(name, "fp32"), engine)

    other = Workload(1, "4", ({k: v[:1] for k, v in workload.passes[0].items()},) * 3)
    speeds = measure(model, [noted("a"), noted("b")], [workload, other], rounds=4, threads=1)
    once = ["a", "b", "a", "a", "a", "b", "b", "b"]
    assert turns == once * (1 + WARM_UP + 4)
    assert [(one.engine, one.batch, one.length) for one in speeds] == [
        *(("a", 2, "data"), ("b", 2, "data")),
        *(("a", 1, "4"), ("b", 1, "4")),
    ]
    for one in speeds:
        assert 0 < one.low <= one.clock <= one.high and one.processor > 0


def test_threads_of_torch_are_as_before(model, workload):
    before = torch.get_num_threads()
    seen = []
    engine = changed(model, lambda v: (seen.append(torch.get_num_threads()), v)[1])
    measure(model, [engine], [workload], rounds=1, threads=2)
    assert {*seen} == {2} and torch.get_num_threads() == before


def test_an_engine_in_a_models_place(model, workload):
    place = AsModel(changed(model, lambda v: v.bfloat16()), model, ("input_ids", "attention_mask"))
    output = place(**workload.passes[0], labels=torch.tensor([0, 1]))
    assert output.logits.dtype == torch.float32 and math.isnan(output.loss)
    assert place.device.type == "cpu" and place.config is model.config
