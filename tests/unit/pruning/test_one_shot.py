"""Pruning at once: exact, without a step of training, and nothing else of the model touched."""

from __future__ import annotations

import copy

import pytest
import torch

import sentei
from helpers.zoo import ZOO
from sentei import serialization
from sentei.methods import find, known
from sentei.testing import Network, Training

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network()


READY = ("magnitude", "obs", "random", "wanda")


@pytest.mark.parametrize("method", known(), ids=lambda method: method.name)
def test_every_method_prunes_exactly_or_says_why_it_cannot(method):
    model = network()
    dense = copy.deepcopy(model.state_dict())
    if method.name not in READY:
        with pytest.raises(ValueError, match=rf"^{method.name} cannot prune at once.*wanda or obs"):
            sentei.one_shot(model, method.build(0.6), [X])
        assert all(torch.equal(dense[name], now) for name, now in model.state_dict().items())
        return
    report = sentei.one_shot(model.train(), method.build(0.6), [X[:32], X[32:]])
    assert report.pruned == round(0.6 * report.prunable)
    assert (report.step, report.total_steps, [u.step for u in report.updates]) == (0, 0, [0])
    scope = {site.name for site in report.sites}
    for name, now in model.state_dict().items():
        kept = now != 0
        if name not in scope:
            assert torch.equal(dense[name], now)
        elif method.name != "obs":  # whose kept weights take over
            assert torch.equal(dense[name][kept], now[kept])
    assert model.training and all(module.training for module in model.modules())
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert not any(block._forward_pre_hooks for block in model.blocks)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_batches_of_every_form_are_one():
    masks = []
    batch = ZOO["bert"].inputs(torch.float32)
    for form in (batch, [batch["input_ids"], batch["attention_mask"]], tuple(batch.values())):
        model = ZOO["bert"].build()
        if isinstance(form, tuple) and list(batch)[:2] != ["input_ids", "attention_mask"]:
            continue
        sentei.one_shot(model, sentei.wanda(0.5), [form])
        masks.append(torch.cat([p.flatten() == 0 for p in model.parameters()]))
    assert len(masks) >= 2 and all(torch.equal(one, masks[0]) for one in masks)


def test_dropout_does_not_blur_what_is_seen():
    models = []
    for training in (True, False):
        model = ZOO["bert"].build().train(training)
        sentei.one_shot(model, sentei.wanda(0.5), [ZOO["bert"].inputs(torch.float32)])
        models.append(list(model.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*models, strict=True))


def test_batches_are_not_read_where_inputs_are_of_no_use():
    def batches():
        raise AssertionError("read")
        yield

    sentei.one_shot(network(), sentei.magnitude(0.5), batches())


def test_reconstruction_mends_outputs():
    errors = {}
    for method in ("magnitude", "wanda", "obs"):
        for rebuilt in ("null", "least_squares"):
            model, dense = network(), network()
            recipe = find(method).build(0.6)
            recipe = serialization.override(recipe, [f"reconstruction={rebuilt}"])
            sentei.one_shot(model, recipe, [X])
            errors[method, rebuilt] = float((model(X) - dense(X)).detach().norm())
    for method in ("magnitude", "wanda", "obs"):
        assert errors[method, "least_squares"] < 0.9 * errors[method, "null"]


def test_what_is_needed_and_was_not_seen():
    with pytest.raises(ValueError, match=r"no inputs were seen of blocks\.0\.weight, "):
        sentei.one_shot(network(), sentei.wanda(0.5))


def test_a_model_that_is_no_model_of_numbers_is_left_as_it_is():
    model = network()
    model.blocks[1].weight.data[0, 0] = torch.nan
    before = model.blocks[0].weight.clone()
    with pytest.raises(FloatingPointError, match=r"blocks\.1\.weight holds NaN"):
        sentei.one_shot(model, sentei.wanda(0.5), [X])
    assert torch.equal(model.blocks[0].weight, before)
    with pytest.raises(FloatingPointError, match="a score is NaN"):
        sentei.one_shot(network(), sentei.wanda(0.5), [X * torch.inf])


def test_beside_a_pruner():
    training = Training(find("magnitude").build(0.5)).run(3)
    with pytest.raises(ValueError, match="a pruner is attached to these weights"):
        sentei.one_shot(training.model, sentei.magnitude(0.5))
    training.pruner.detach()
    assert sentei.one_shot(training.model, sentei.magnitude(0.5)).sparsity == 0.5


def test_what_was_pruned_at_once_may_be_trained_on():
    training = Training(None)
    sentei.one_shot(training.model, sentei.wanda(0.5), [X])
    recipe = serialization.override(find("frozen_mask").build(None), [])
    pruner = sentei.Pruner(training.model, recipe, total_steps=4)
    pruner.attach(training.optimizer)
    training.run(4)
    assert pruner.finish().sparsity == 0.5


def test_sparsity_0_changes_nothing():
    model = network()
    dense = copy.deepcopy(model.state_dict())
    assert sentei.one_shot(model, sentei.obs(0.0), [X]).pruned == 0
    assert all(torch.equal(dense[name], now) for name, now in model.state_dict().items())


def test_no_recipe():
    with pytest.raises(TypeError, match="expected a Recipe"):
        sentei.one_shot(network(), "wanda")
