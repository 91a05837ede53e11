"""Attaching, ending, closures, and sparsity 0: when a pruner acts and when it does not."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

import sentei
from helpers.pruning import LATENT, MAGNITUDE, PLATON, closure_of, same, snapshot, step, unchanged
from sentei.methods import known
from sentei.modules import teaching
from sentei.parts.distillation import Distillation
from sentei.testing import STEPS, Training


def test_attach_twice_is_once_and_to_another_is_refused():
    training = Training(PLATON).run(3)
    training.pruner.attach(training.optimizer)
    training.step()
    assert training.pruner.step == 4
    other = torch.optim.SGD(training.model.parameters())
    with pytest.raises(ValueError, match=r"has an optimizer already: pruner\.detach\(\)"):
        training.pruner.attach(other)
    training.pruner.detach()
    training.pruner.attach(other)


def test_detach_stops_pruning():
    training = Training(MAGNITUDE).run(STEPS // 2)
    training.pruner.detach()
    before = snapshot(training.pruner)
    training.step()
    assert unchanged(training.pruner, before | {"weights": training.pruner.state_dict()["weights"]})


def test_finish_without_a_step():
    with pytest.raises(ValueError, match="pruning never ran"):
        Training(PLATON).finish()


def test_finish_twice():
    training = Training(PLATON).run()
    training.finish()
    with pytest.raises(ValueError, match="finished already"):
        training.finish()


def test_finished_stays_finished():
    """Asking for the state afterwards must not bring an empty one to life."""
    training = Training(PLATON).run()
    training.finish()
    with contextlib.suppress(ValueError):
        training.pruner.state_dict()
    with pytest.raises(ValueError, match="finished already"):
        training.finish()
    with pytest.raises(ValueError, match="has finished"):
        training.pruner.attach(training.optimizer)


def test_training_past_the_end_warns_once_and_stays_at_the_target():
    training = Training(PLATON).run()
    with pytest.warns(sentei.SenteiWarning, match="past total_steps=40") as warned:
        for _ in range(3):
            step(training)
    assert len(warned) == 1
    assert training.pruner.target == 0.7
    assert training.finish().pruned == round(0.7 * training.pruner.prunable)


@pytest.mark.parametrize("method", known(), ids=lambda method: method.name)
def test_at_sparsity_zero_nothing_happens(method):
    stages = {"stages": 10} if method.name == "knowledge_aware" else {}
    training, dense = Training(method.build(0.0, **stages)), Training(None)
    for number in range(STEPS):
        closure, dense_closure = closure_of(training), closure_of(dense)
        assert torch.equal(training.optimizer.step(closure), dense.optimizer.step(dense_closure))
        if number == 20:
            training.model.load_state_dict(training.model.state_dict())
        assert same(training.weights(), dense.weights())
    assert training.pruner.updates == [] and training.pruner.sparsity == 0
    assert all(mask.all() for mask in training.pruner.masks.values())
    assert training.finish().pruned == 0


def test_ratios():
    training = Training(sentei.leap(0.7, settle=None, initial=3.0)).run(8)
    ratios = training.pruner.ratios
    assert list(ratios) == list(training.pruner.masks)
    kept = [mask.float().mean().item() for mask in training.pruner.masks.values()]
    assert list(ratios.values()) == pytest.approx(kept, abs=1 / 256)
    assert Training(MAGNITUDE).pruner.ratios == {}


def test_ratios_of_neurons_stand_by_their_place():
    config = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=9, num_hidden_layers=1, **config))
    recipe = sentei.leap(0.5, pattern="head+neuron")
    names = list(sentei.Pruner(model, recipe, total_steps=50).ratios)
    layer = "encoder.layer.0"
    assert names == [f"{layer}.attention", layer]


def test_a_name_is_no_recipe():
    for make in (
        lambda: sentei.Pruner(nn.Linear(2, 2), "platon", total_steps=9),
        lambda: sentei.PruningCallback("platon"),
    ):
        with pytest.raises(TypeError, match=r"expected a Recipe, found 'platon'"):
            make()


@pytest.mark.parametrize("by_name", [True, False])
def test_closures(by_name):
    def run(training, steps):
        for _ in range(steps):
            closure = closure_of(training)
            _ = (
                training.optimizer.step(closure=closure)
                if by_name
                else training.optimizer.step(closure)
            )
        return training

    old = Training(sentei.platon(0.7, window=2, every=2, iterate="old"))
    with pytest.raises(ValueError, match=r"use score\.iterate='new'"):
        run(old, 1)
    report = run(Training(PLATON), STEPS).finish()
    assert report.pruned == round(0.7 * report.prunable)


@pytest.mark.parametrize(
    "recipe", [*LATENT.values(), sentei.mgpp(0.7, every=2)], ids=[*LATENT, "mgpp"]
)
def test_closures_where_gradients_are_changed(recipe):
    training = Training(recipe)
    before = training.weights()
    with pytest.raises(ValueError, match="a closure computes them inside: step without a closure"):
        training.optimizer.step(closure_of(training))
    assert same(before, training.weights()) and training.pruner.step == 0


@pytest.mark.parametrize("recipe", [sentei.proximal(0.7, every=2), sentei.random(0.7, every=2)])
def test_closures_where_they_are_not(recipe):
    training = Training(recipe)
    for _ in range(STEPS):
        training.optimizer.step(closure_of(training))
    assert training.finish().pruned == round(0.7 * 1024)


@pytest.mark.parametrize("spelling", [lambda o: o.step(None), lambda o: o.step(closure=None)])
def test_no_closure_is_no_closure(spelling):
    training = Training(sentei.platon(0.7, window=2, every=2, iterate="old"))
    training.gradients()
    spelling(training.optimizer)
    assert training.pruner.step == 1


@pytest.mark.parametrize(
    ("required", "attached", "warns"),
    [(True, False, True), (True, True, False), (False, False, False)],
)
def test_a_teacher_that_is_needed_and_missing_is_told_once(required, attached, warns, recwarn):
    distill = Distillation(required=required)
    training = Training(MAGNITUDE.model_copy(update={"distill": distill}))
    if attached:
        training.model.register_forward_hook(teaching(lambda module, args, output: None))
    for _ in range(3):
        step(training)
    messages = [str(warning.message) for warning in recwarn]
    assert sum("learns from a teacher, and none is attached" in m for m in messages) == warns
