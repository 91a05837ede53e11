"""What was decided against what is there; and the same zeros in averaged copies."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

import sentei
from helpers.pruning import LATENT, MAGNITUDE, PLATON, latent
from sentei.methods import known
from sentei.testing import STEPS, Network, Training, _small

PRUNED = round(0.7 * 1024)
ALL = {"magnitude": MAGNITUDE, "platon": PLATON, "mgpp": sentei.mgpp(0.7, every=2), **LATENT}
recipes = pytest.mark.parametrize("recipe", ALL.values(), ids=ALL.keys())
WRITTEN = "that were pruned had been written to after the last step"


def zeros(model):
    return sum(int((block.weight == 0).sum()) for block in model.blocks)


def average(model, other):
    with torch.no_grad():
        for one, two in zip(model.parameters(), other.parameters(), strict=True):
            one.lerp_(two, 0.5)


def average_through_data(model, other):
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        one.data.lerp_(two.data, 0.5)


def load(model, other):
    model.load_state_dict(other.state_dict())


def load_shared(model, other):
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        one.data = two.data.clone()


WRITERS = [average, average_through_data, load, load_shared]


@recipes
@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore:.*learned sparsity:sentei.SenteiWarning")
def test_weights_written_after_the_last_step_are_pruned_again_and_it_is_said(recipe, write):
    dense = Training(None).model
    training = Training(recipe).run()
    masks = {name: mask.clone() for name, mask in training.pruner.masks.items()}
    write(training.model, dense)
    written = training.weights()
    with pytest.warns(sentei.SenteiWarning, match=WRITTEN):
        report = training.finish()
    assert report.pruned == zeros(training.model) == PRUNED
    for name, mask in masks.items():
        assert torch.equal(training.weights()[name], written[name] * mask)


@latent
@pytest.mark.filterwarnings("ignore:training stopped:sentei.SenteiWarning")
@pytest.mark.filterwarnings("ignore:.*learned sparsity:sentei.SenteiWarning")
@pytest.mark.parametrize("write", [average, average_through_data, load], ids=lambda f: f.__name__)
def test_where_the_last_decision_would_undo_it_it_is_refused(recipe, write):
    training = Training(recipe).run(STEPS // 2)
    dense = Training(None).model
    before = copy.deepcopy(training.model)
    write(training.model, dense)
    with pytest.raises(ValueError, match="the weights were written to after step 20"):
        training.finish()
    load_shared(training.model, before)
    assert training.finish().pruned == PRUNED


@pytest.mark.parametrize("method", known(), ids=lambda method: method.name)
def test_without_another_writer_there_is_nothing_to_say(method, recwarn):
    training = Training(_small(method)).run()
    before = training.weights()
    recwarn.clear()
    training.finish()
    assert all(torch.equal(before[name], w) for name, w in training.weights().items())
    assert not [w for w in recwarn if "written to" in str(w.message)]


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.Adagrad(p, lr=0.1),
    ],
    ids=["SGD", "Adagrad"],
)
def test_a_penalty_that_prunes_more_than_was_asked_for_is_said(optimizer):
    training = Training(None)
    recipe = sentei.proximal(0.5, coefficient=0.05, every=2)
    training.optimizer = optimizer(training.model.parameters())
    training.pruner = sentei.Pruner(training.model, recipe, total_steps=STEPS)
    training.pruner.attach(training.optimizer)
    training.run()
    there = zeros(training.model)
    assert there > 512
    said = f"has {there:,} zeros where 512 were decided: .*lower its coefficient"
    with pytest.warns(sentei.SenteiWarning, match=said):
        report = training.finish()
    assert report.pruned == there


def test_zeros_that_were_there_are_said_to_be():
    """Written by somebody, and not by the decision."""
    training = Training(PLATON).run()
    with torch.no_grad():
        training.model.blocks[2].weight.zero_()
    with pytest.warns(sentei.SenteiWarning, match="zeros where 717 were decided: .* somebody"):
        report = training.finish()
    assert report.pruned == zeros(training.model) > PRUNED


# Copies.


class Average:
    """An exponential moving average of a training's weights, in a copy of the model."""

    def __init__(self, training):
        self.model = copy.deepcopy(training.model)
        self.training = training

    def step(self):
        self.training.step()
        now = self.training.model.state_dict()
        for name, tensor in self.model.state_dict().items():
            tensor.lerp_(now[name], 0.2)


@recipes
@pytest.mark.parametrize("when", ["in training", "after finish"])
@pytest.mark.filterwarnings("ignore:.*learned sparsity:sentei.SenteiWarning")
def test_an_average_gets_the_zeros_of_the_model(recipe, when):
    training = Training(recipe)
    average = Average(training)
    for _ in range(STEPS):
        average.step()
    before = copy.deepcopy(average.model.state_dict())
    masks = {name: mask.clone() for name, mask in training.pruner.masks.items()}
    assert zeros(average.model) < PRUNED
    if when == "after finish":
        training.finish()
    assert training.pruner.mask_(average.model) == PRUNED / 1024
    after = average.model.state_dict()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor * masks[name] if name in masks else tensor)
    assert all(torch.equal(w, masks[n] * w) for n, w in training.weights().items() if n in masks)


def test_a_wrapped_average_and_a_state_dict():
    training = Training(MAGNITUDE)
    average = AveragedModel(training.model)
    for _ in range(STEPS):
        training.step()
        average.update_parameters(training.model)
    training.finish()
    state = {name: tensor.clone() for name, tensor in average.module.state_dict().items()}
    assert training.pruner.mask_(average) == training.pruner.mask_(state) == PRUNED / 1024
    blocks = enumerate(average.module.blocks)
    assert all(torch.equal(state[f"blocks.{i}.weight"], block.weight) for i, block in blocks)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda model: torch.nn.Linear(2, 2), r"blocks\.0\.weight is not in it"),
        (
            lambda model: Network(8),
            r"is \(8, 8\) in it, and \(16, 16\) in the model",
        ),
        (lambda model: model, "is the model's own tensor"),
        (lambda model: {}, r"blocks\.0\.weight is not in it"),
    ],
    ids=["another", "another size", "itself", "nothing"],
)
def test_what_is_no_copy_is_refused_and_unchanged(other, message):
    training = Training(MAGNITUDE).run()
    copied = other(training.model)
    with pytest.raises(ValueError, match=message):
        training.pruner.mask_(copied)


def test_a_model_written_to_after_it_finished_is_no_pattern():
    training = Training(MAGNITUDE).run()
    training.finish()
    copied = copy.deepcopy(training.model)
    load(training.model, Training(None).model)
    with pytest.raises(ValueError, match=r"blocks\.0\.weight has 0 zeros, and had \d+ when"):
        training.pruner.mask_(copied)


def test_before_anything_is_attached_there_is_no_mask():
    model = Training(None).model
    pruner = sentei.Pruner(model, MAGNITUDE, total_steps=STEPS)
    with pytest.raises(ValueError, match="nothing is pruned yet"):
        pruner.mask_(copy.deepcopy(model))
