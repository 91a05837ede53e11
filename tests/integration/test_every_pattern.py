"""Every method prunes in every pattern: whole units, exactly as many as asked, and resumes."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

import sentei
from helpers.training import fitted
from sentei import serialization
from sentei.methods import known

STEPS = 20
PATTERNS = ["2:4", "4x2", "row", "column", "head+neuron", "neuron+4x4"]


@pytest.fixture(autouse=True)
def so_short_a_run_is_no_measure_of_a_learned_sparsity():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sentei.SenteiWarning)
        yield


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


class Run:
    def __init__(self, model, recipe):
        self.model = copy.deepcopy(model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.pruner = sentei.Pruner(self.model, recipe, total_steps=STEPS, examples=100)
        self.pruner.attach(self.optimizer)

    def steps(self, first, last):
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            words = torch.randint(0, 50, (8, 6), generator=generator)
            self.model(words, labels=words[:, 0] % 2).loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", known(), ids=lambda method: method.name)
def test_pattern(method, pattern, model):
    if method.name in ("leap", "l0") and pattern == "2:4":
        pytest.skip("refused, see test_patterns")
    recipe = fitted(method, 0.5)
    if recipe.schedule.from_model:
        with pytest.raises(ValueError, match="weight by weight: use pattern: unstructured"):
            serialization.override(recipe, [f"pattern={pattern!r}"])
        return
    budget = ["budget=uniform"] * (method.name == "wanda" and pattern != "2:4")  # as it builds
    recipe = serialization.override(recipe, [f"pattern={pattern!r}", *budget])
    run = Run(model, recipe)
    run.steps(0, 13)
    saved, weights = copy.deepcopy(run.pruner.state_dict()), copy.deepcopy(run.model.state_dict())
    moments = copy.deepcopy(run.optimizer.state_dict())
    run.steps(13, STEPS)
    report = run.pruner.finish()
    for units in report.units:
        assert units.pattern in pattern.split("+")
    excess = report.updates[-1].pruned - report.prunable / 2
    learned, unlike = (
        hasattr(recipe.budget, "settle"),
        pattern in ("row", "column") or "+" in pattern,
    )
    if learned and unlike:  # how much each kind and size keeps is learned
        assert 0 <= excess < max(group.weights for group in recipe.lay_units(run.model)[1])
    else:
        assert excess == 0
        assert report.sparsity == 0.5 or method.name == "proximal"  # whose zeros may be more
    by_kind = {}
    for units in report.units:
        pruned, count = by_kind.get(units.pattern, (0, 0))
        by_kind[units.pattern] = pruned + units.pruned, count + units.units
    assert (learned and unlike) or all(p == count // 2 for p, count in by_kind.values())
    assert set(by_kind) == set(pattern.split("+"))

    again = Run(model, recipe)
    again.model.load_state_dict(weights)
    again.optimizer.load_state_dict(moments)
    again.pruner.load_state_dict(saved)
    again.steps(13, STEPS)
    assert again.pruner.finish() == report
    for name, weight in run.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


@pytest.mark.parametrize("method", ["platon", "movement", "leap"])
def test_pruned_heads_and_neurons_are_whole(method, model):
    """No half heads: rows of q, k, v and columns of the output are zero together."""
    chosen = next(m for m in known() if m.name == method)
    run = Run(model, serialization.override(fitted(chosen, 0.5), ["pattern=head+neuron"]))
    run.steps(0, STEPS)
    run.pruner.finish()
    heads = neurons = 0
    for layer in run.model.bert.encoder.layer:
        attention = layer.attention
        for head in range(4):
            rows = slice(4 * head, 4 * head + 4)
            parts = [getattr(attention.self, n).weight[rows] for n in ("query", "key", "value")]
            parts.append(attention.output.dense.weight[:, rows])
            dead = [not bool(part.any()) for part in parts]
            assert all(dead) or not any(dead)
            heads += dead[0]
        rows, columns = layer.intermediate.dense.weight, layer.output.dense.weight
        dead = (rows == 0).all(1)
        assert torch.equal(dead, (columns == 0).all(0))
        neurons += int(dead.sum())
    assert (heads, neurons) == (4, 32)


def test_one_shape_for_every_layer(model):
    recipe = sentei.platon(
        0.6, pattern="head+neuron", window=2, every=2, scope={"exclude": ["*layer.1.output*"]}
    )
    with pytest.raises(ValueError, match=r"layer\.1\.output\.dense\.weight goes with"):
        Run(model, recipe)
    recipe = serialization.override(
        sentei.platon(0.6, pattern="neuron", window=2, every=2),
        ["budget=uniform", "budget.multiple=8"],
    )
    run = Run(model, recipe)
    run.steps(0, STEPS)
    assert [u.units - u.pruned for u in run.pruner.finish().units] == [16, 16]
