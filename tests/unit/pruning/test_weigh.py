"""Scores that know what inputs are worth: when they look, on which weights, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import sentei
from helpers.pruning import same
from helpers.zoo import ZOO
from sentei import serialization
from sentei.methods import find
from sentei.pruning import steps
from sentei.testing import STEPS, Training

SETTINGS = ("schedule.every=4", "score.inputs.steps=2")


def recipe_of(method="wanda", *settings, **arguments):
    alone = {"reconstruction": None} if method == "obs" else {}
    return serialization.override(
        find(method).build(0.8, **alone, **arguments), [*SETTINGS, *settings]
    )


def looked(training):
    """The steps whose inputs were observed, and the decisions."""
    observed, tokens, state = [], 0.0, training.pruner._state
    for step in range(1, STEPS + 1):
        due = steps.wants_inputs(state, step)
        training.step()
        now = float(next(iter(state.inputs.values())).tokens)
        observed += [step] * (due or now > tokens)
        tokens = now
    return observed, [update.step for update in training.pruner.updates]


def test_inputs_are_seen_before_decisions_on_the_ramp_and_not_after_it():
    observed, decided = looked(Training(recipe_of(hold=False)))
    assert observed == [7, 8, 11, 12, 15, 16, 19, 20, 23, 24]
    assert decided == [8, 12, 16, 20, *range(24, 41)]


def test_seldom_where_decisions_are_many():
    """The first of each part of the ramp; a score without new inputs ranks by those it has."""
    observed, decided = looked(Training(recipe_of("wanda", "score.decisions=2")))
    assert observed == [7, 8, 15, 16, 23, 24]
    assert decided == [8, 12, 16, 20, 24, 40]


def test_a_score_and_a_reconstruction_look_together():
    rebuilt = ("reconstruction=least_squares", "reconstruction.decisions=1")
    settings = (*rebuilt, *SETTINGS, "reconstruction.inputs.steps=2")
    training = Training(serialization.override(find("wanda").build(0.8), settings))
    observed, _ = looked(training)
    assert observed == [7, 8, 11, 12, 15, 16, 19, 20, 23, 24]
    for state in training.pruner._state.inputs.values():
        assert state.squares is None and state.gram[0].shape == (16, 16)
        assert state.worth.isfinite().all()


@pytest.mark.parametrize("name", ["steps", "tokens", "beta", "width"])
def test_a_score_and_a_reconstruction_that_look_otherwise_are_refused(name):
    value = {"steps": 5, "tokens": 64, "beta": 0.5, "width": 100}[name]
    with pytest.raises(ValueError, match=rf"score\.inputs\.{name}=.* is not reconstruction\."):
        serialization.override(
            find("wanda").build(0.8),
            ["reconstruction=least_squares", f"reconstruction.inputs.{name}={value}"],
        )


def test_a_schedule_that_keeps_the_zeros_is_refused():
    with pytest.raises(ValueError, match=r"score wanda ranks .* use score: nonzero"):
        serialization.override(find("frozen_mask").build(0.5), ["score=wanda"])


@pytest.mark.parametrize("method", ["wanda", "obs"])
@pytest.mark.parametrize(
    ("scope", "named"),
    [
        ({"include": ["blocks.*"]}, r"blocks\.0\.bias, blocks\.1\.bias"),
        ({"include": ["*.weight"]}, r"embedding\.weight is no matrix"),
    ],
    ids=["biases", "embeddings"],
)
def test_what_has_no_inputs_is_refused_by_name(method, scope, named):
    model = Training(None).model
    model.embedding = nn.Embedding(5, 16)
    with pytest.raises(ValueError, match=rf"{named}.*scope\.exclude"):
        sentei.Pruner(model, find(method).build(0.5, scope=scope), total_steps=100)


@pytest.mark.parametrize("method", ["wanda", "obs"])
def test_a_layer_that_is_bypassed_is_named_before_it_is_ranked(method):
    training = Training(recipe_of(method))
    bypassed = training.model.blocks[1]
    bypassed.__class__ = type(
        "Bypassed",
        (nn.Linear,),
        {"__call__": lambda self, x: nn.functional.linear(x, self.weight, self.bias)},
    )
    with pytest.raises(ValueError, match=r"no inputs were seen of blocks\.1\.weight, and score"):
        training.run(8)
    assert training.pruner.sparsity == 0


def test_ending_before_the_first_decision_is_explained():
    training = Training(recipe_of()).run(5)
    with (
        pytest.warns(sentei.SenteiWarning, match="training stopped at step 5"),
        pytest.raises(ValueError, match="no inputs were seen of blocks"),
    ):
        training.finish()


@pytest.mark.parametrize("method", ["wanda", "obs"])
def test_resuming_anywhere_is_exact_where_nothing_is_held(method):
    """Between observing and deciding, and where decisions use what was seen long ago."""
    recipe = recipe_of(method, hold=False)
    whole = Training(recipe).run()
    for stop in (6, 7, 8, 30):
        first, second = Training(recipe).run(stop), Training(recipe)
        second.model.load_state_dict(copy.deepcopy(first.model.state_dict()))
        second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
        second.pruner.load_state_dict(copy.deepcopy(first.pruner.state_dict()))
        second.count = stop
        assert same(second.run(STEPS - stop).weights(), whole.weights())


def pruned(specimen, method, **arguments):
    """A model pruned at once, as it was, and the worth of its inputs by name of a site."""
    model = ZOO[specimen].build()
    dense, worths = copy.deepcopy(model), {}
    hooks = [
        module.register_forward_pre_hook(
            lambda module, args, name=name: worths.setdefault(f"{name}.weight", []).append(
                args[0].detach().double().flatten(0, -2)
            )
        )
        for name, module in model.named_modules()
        if getattr(module, "weight", None) is not None and module.weight.ndim == 2
        if not isinstance(module, nn.Embedding)
    ]
    recipe = find(method).build(0.5, **arguments)
    batch = ZOO[specimen].inputs(torch.float32)
    report = sentei.one_shot(model, recipe, [batch])
    for hook in hooks:
        hook.remove()
    roots = {name: torch.cat(x).square().mean(0).sqrt() for name, x in worths.items()}
    return model, dense, report, roots


@pytest.mark.parametrize("specimen", ["gpt2", "llama"])
def test_matrices_stored_the_other_way_too(specimen):
    """Each output of each matrix keeps those whose |w| times their input's size is largest."""
    model, dense, report, roots = pruned(specimen, "wanda")
    assert report.pruned == round(report.prunable * 0.5)
    before = dict(dense.named_parameters())
    for site in report.sites:
        weight, was = (dict(one.named_parameters())[site.name] for one in (model, dense))
        if "Conv1D" in type(model.get_submodule(site.name.removesuffix(".weight"))).__name__:
            weight, was = weight.T, was.T
        scores = was.detach().double().abs() * roots[site.name]
        for row, score in zip(weight, scores, strict=True):
            assert score[row == 0].max() <= score[row != 0].min() * (1 + 1e-5)
    assert len(before) == len(list(model.parameters()))


PATTERNS = ("2:4", "4x1", "row", "column", "head", "neuron", "head+neuron")


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", ["wanda", "obs"])
def test_patterns_pool_them(method, pattern):
    model, dense, report, roots = pruned("bert", method, pattern=pattern)
    assert abs(report.sparsity - 0.5) < 0.01
    if pattern != "column":
        return
    for site in report.sites:  # of one matrix, the columns of the smallest |w| on average
        if method == "wanda":
            was, now = (one.get_parameter(site.name).detach() for one in (dense, model))
            scores = was.double().abs().mean(0) * roots[site.name]
            gone = (now == 0).all(0)
            assert scores[gone].max() <= scores[~gone].min() * (1 + 1e-5)


def test_rows_are_for_single_weights():
    with pytest.raises(ValueError, match=r"uniform_rows ranks the weights into one output"):
        find("wanda").build(0.5, pattern="head", budget="row")


def test_latent_weights_are_weighed_too():
    recipe = recipe_of("wanda", "mask=straight_through")
    training = Training(recipe).run()
    assert training.finish().sparsity == pytest.approx(0.8, abs=1e-3)
