"""Weights that a latent mask keeps aside: nobody sees them, and nobody overwrites them."""

from __future__ import annotations

import pytest
import torch

import sentei
from helpers.pruning import LATENT, MAGNITUDE, latent, projected, same
from sentei.testing import STEPS, Training


@latent
@pytest.mark.parametrize("steps", [0, 5])
def test_weights_exchanged_under_a_latent_mask_are_refused(recipe, steps):
    """Between two steps, and between attaching and the first: the dense weights are elsewhere."""
    training = Training(recipe).run(steps)
    weights = {n: 2 * w for n, w in training.model.state_dict().items()}
    training.model.load_state_dict(weights)
    with pytest.raises(ValueError, match=r"blocks\.0\.weight was written to between two steps"):
        training.step()
    assert training.pruner.step == steps


@projected
def test_without_one_they_may_be(recipe):
    training = Training(recipe).run(5)
    training.model.load_state_dict({n: w / 2 for n, w in training.model.state_dict().items()})
    training.step()
    assert training.pruner.step == 6


@latent
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
@pytest.mark.parametrize("then", ["save", "step", "finish", "detach"])
def test_a_step_that_was_broken_off_leaves_no_dense_weights(recipe, then):
    """Ctrl-C in the optimizer's step, which runs on the dense weights."""
    training = Training(recipe).run(38)

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = training.optimizer.register_step_pre_hook(interrupt)
    training.gradients()
    with pytest.raises(KeyboardInterrupt):
        training.optimizer.step()
    hook.remove()
    if then == "step":
        training.step()
        assert training.pruner.step == 39
    elif then != "save":
        getattr(training.pruner, then)()
    weights = training.model.state_dict()
    zeros = sum(int((weights[f"blocks.{i}.weight"] == 0).sum()) for i in range(4))
    assert 0.69 < zeros / training.pruner.prunable < 0.71
    if then != "finish":  # which drops the masks
        masks = training.pruner.state_dict()["masks"]
        assert all((weights[name][~mask] == 0).all() for name, mask in masks.items())


def test_a_model_that_moved_is_told():
    training = Training(MAGNITUDE).run(5)
    # There is no other device here, so the mask moves.
    state = next(iter(training.pruner._state.sites.values()))
    state.keep = state.keep.to("meta")
    with pytest.raises(ValueError, match=r"is on cpu, and was on meta .* move the model first"):
        training.optimizer.step()


@latent
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_weights_loaded_before_attaching_are_the_latent_ones(recipe):
    training = Training(None)
    pruner = sentei.Pruner(training.model, recipe, total_steps=STEPS)
    weights = {n: w / 2 for n, w in training.model.state_dict().items()}
    training.model.load_state_dict(weights)
    pruner.attach(training.optimizer)
    memory = pruner.state_dict()["memory"]
    assert all(torch.equal(memory[name]["latent"], weights[name]) for name in memory)


@latent
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_the_module_keeps_its_parameters(recipe):
    """Optimizers, DDP and compiled graphs hold on to the objects and their storage."""
    training = Training(recipe)
    parameters = {n: (id(p), p.data_ptr()) for n, p in training.model.named_parameters()}
    for _ in range(STEPS):
        training.step()
        now = {n: (id(p), p.data_ptr()) for n, p in training.model.named_parameters()}
        assert now == parameters
    training.finish()


def test_samples_are_in_the_modules_in_forward_passes_of_training_only():
    training = Training(LATENT["l0"]).run(10)
    sparse = training.weights()
    training.model(training.inputs[0])
    sample = training.weights()
    assert not same(sample, sparse)
    training.model(training.inputs[0])
    assert same(training.weights(), sample), "one sample a step"
    assert same(training.model.state_dict(), sparse), "saved is what evaluation sees"
    training.model(training.inputs[0])
    assert same(training.weights(), sample)
    training.model.eval()(training.inputs[0])
    assert same(training.weights(), sparse)


def test_a_replica_of_the_model_cannot_hold_samples():
    """DataParallel copies the weights before the forward hooks run."""
    training = Training(LATENT["l0"])
    training.model._is_replica = True
    with pytest.raises(ValueError, match=r"cannot be drawn under DataParallel.*one process a GPU"):
        training.model(training.inputs[0])
