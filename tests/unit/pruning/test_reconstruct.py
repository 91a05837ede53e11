"""Reconstruction in a training: when, on which weights, and that nothing else is disturbed."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

import sentei
from helpers.pruning import same
from helpers.zoo import ZOO
from sentei import serialization
from sentei.methods import find, known
from sentei.pruning import reconstruct
from sentei.testing import CHECKS, STEPS, Training

SETTINGS = ("schedule.every=4", "reconstruction=least_squares", "reconstruction.inputs.steps=2")


def recipe_of(method="magnitude", *settings):
    return serialization.override(find(method).build(0.8), [*SETTINGS, *settings])


def seen(training):
    """The steps at which a reconstruction was made, and those whose inputs were observed."""
    made, observed, tokens = [], [], 0.0
    state = training.pruner._state
    for step in range(1, STEPS + 1):
        due = reconstruct.is_due(state, step)
        training.step()
        made += [step] * due
        now = float(next(iter(state.inputs.values())).tokens)
        observed += [step] * (due or now > tokens)
        tokens = now
    return made, observed


def test_at_the_ramps_decisions_with_the_inputs_of_the_steps_before():
    made, observed = seen(Training(recipe_of()))
    assert made == [8, 12, 16, 20, 24]  # the ramp is from 4 to 24
    assert observed == [7, 8, 11, 12, 15, 16, 19, 20, 23, 24]


def test_in_long_trainings_at_so_many_and_no_more():
    made, _ = seen(Training(recipe_of("magnitude", "reconstruction.decisions=2")))
    assert made == [8, 16, 24]


REFUSED = ("l0", "frozen_mask")
METHODS = sorted(method.name for method in known() if method.name not in REFUSED)


@pytest.mark.parametrize("name", METHODS)
def test_methods_keep_their_promises_with_it(name):
    """Exact counts, the same bits after resuming, accumulation, skipped and scaled steps."""
    method = find(name)

    def build(sparsity=0.8, **arguments):
        recipe = method.build(sparsity, **arguments)
        return serialization.override(recipe, ["reconstruction=least_squares"])

    rebuilt = dataclasses.replace(method, build=build)
    for check in CHECKS:
        if check.__name__ != "check_resume":  # below, at some of its steps
            check(rebuilt)


@pytest.mark.parametrize("name", ["magnitude", "platon", "movement"])
def test_resuming_between_observing_and_deciding_is_exact(name):
    recipe = recipe_of(name) if name != "platon" else recipe_of(name, "score.window=2")
    whole = Training(recipe).run()
    for stop in (6, 7, 8, 27):
        first, second = Training(recipe).run(stop), Training(recipe)
        second.model.load_state_dict(copy.deepcopy(first.model.state_dict()))
        second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
        second.pruner.load_state_dict(copy.deepcopy(first.pruner.state_dict()))
        second.count = stop
        assert same(second.run(STEPS - stop).weights(), whole.weights())


@torch.no_grad()
def outputs_error(method, pattern, specimen="bert"):
    """How far the encoder's outputs are from the dense model's after one decision, relative to
    that of the same decision without reconstruction.
    """
    errors = []
    for settings in ((), ("reconstruction=least_squares", "reconstruction.iterations=30")):
        model = ZOO[specimen].build()
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.mul_(0.3)
        inputs = ZOO[specimen].inputs(torch.float32)
        dense = copy.deepcopy(model)(**inputs).logits
        scope = ["schedule.cooldown=0", "schedule.warmup=0", "schedule.every=1"]
        recipe = serialization.override(
            find(method).build(0.5, pattern=pattern), [*scope, *settings]
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        pruner = sentei.Pruner(model, recipe, total_steps=1)
        pruner.attach(optimizer)
        with torch.enable_grad():
            model(**inputs).logits.square().sum().backward()
        optimizer.step()
        pruner.finish()
        errors.append((model(**inputs).logits - dense).norm())
    return float(errors[1] / errors[0])


PATTERNS = ("unstructured", "2:4", "4x1", "column", "head", "neuron", "head+neuron")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_that_leaves_something_in_a_row(pattern):
    assert outputs_error("magnitude", pattern) < 0.95


def test_stored_transposed():
    assert outputs_error("magnitude", "unstructured", "gpt2") < 0.95


def test_rows_leave_nothing_that_could_take_over():
    assert outputs_error("magnitude", "row") == 1


def test_latent_weights_that_are_pruned_stay_as_they_were():
    recipe = recipe_of("movement", "schedule.warmup=0.1")
    one, two = Training(recipe), Training(recipe.model_copy(update={"reconstruction": None}))
    for training in (one, two):
        while not training.pruner.updates:
            training.step()
    for site, state in one.pruner._state.sites.items():
        other = next(s for s in two.pruner._state.sites.values() if s.site.name == site.name)
        assert torch.equal(state.keep, other.keep)
        assert torch.equal(state.latent[~state.keep], other.latent[~state.keep])
        assert not torch.equal(state.latent[state.keep], other.latent[state.keep])
        assert torch.equal(site.parameter, state.latent * state.keep)


def test_layers_whose_inputs_are_not_seen_are_named():
    training = Training(recipe_of())
    bypassed = training.model.blocks[1]
    bypassed.forward = lambda x: nn.functional.linear(x, bypassed.weight, bypassed.bias)
    bypassed.__class__ = type(
        "Bypassed", (nn.Linear,), {"__call__": lambda self, x: self.forward(x)}
    )
    with pytest.warns(sentei.SenteiWarning, match=r"no inputs were seen of blocks\.1\.weight, so"):
        for _ in range(8):
            training.gradients()
            training.optimizer.step()
            training.optimizer.zero_grad()
            training.count += 1


@pytest.mark.parametrize(
    ("method", "reason"),
    [*zip(REFUSED, ("mask hard_concrete scales them", "never prunes"), strict=True)],
)
def test_where_it_makes_no_sense_it_is_refused(method, reason):
    with pytest.raises(ValueError, match=reason):
        serialization.override(find(method).build(0.5), ["reconstruction=least_squares"])


@pytest.mark.parametrize("how", ["whole", "in place", "block by block"])
def test_compiled(how):
    """A compiled model is pruned to the same bits as the plain one, after another that had no
    hooks too.
    """
    if how == "whole":
        without = Training(recipe_of().model_copy(update={"reconstruction": None}))
        without.model = torch.compile(without.model, backend="aot_eager")
        without.run(3)
    weights = []
    for compiled in (False, True):
        training = Training(recipe_of(), dtype=torch.float64)
        if compiled and how == "whole":
            training.model = torch.compile(training.model, backend="aot_eager")
        elif compiled:
            parts = [training.model] if how == "in place" else training.model.blocks
            for part in parts:
                part.compile(backend="aot_eager")
        training.run(20)
        weights.append([parameter.detach() for parameter in training.model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
