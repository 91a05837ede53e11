"""Weights that a latent mask keeps aside: nobody sees them, and nobody overwrites them."""

from __future__ import annotations

import copy
import io

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


def break_off(training):
    """An exception in the middle of the optimizer's step."""

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = training.optimizer.register_step_pre_hook(interrupt)
    training.gradients()
    with pytest.raises(KeyboardInterrupt):
        training.optimizer.step()
    hook.remove()


@latent
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
@pytest.mark.parametrize("then", ["save", "step", "finish", "detach"])
def test_a_step_that_was_broken_off_leaves_no_dense_weights(recipe, then):
    """Ctrl-C in the optimizer's step, which runs on the dense weights."""
    training = Training(recipe).run(38)
    break_off(training)
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


def between(training):
    """In the middle of a step: its gradients are still to be computed from a sample."""
    x, y = training.inputs[training.count], training.targets[training.count]
    return torch.nn.functional.mse_loss(training.model(x), y)


READERS = {
    "state_dict": lambda training: training.model.state_dict(),
    "of a part": lambda training: training.model.blocks.state_dict(),
    "with variables": lambda training: training.model.state_dict(keep_vars=True),
    "the pruner's": lambda training: copy.deepcopy(training.pruner.state_dict()),
}


@latent
@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
def test_saving_between_forward_and_backward_changes_no_gradient(recipe, read):
    gradients = []
    for reads in (False, True):
        training = Training(recipe).run(10)
        rest = training.weights()
        loss = between(training)
        if reads:
            read(training)
            for name, saved in training.model.state_dict().items():
                assert torch.equal(saved, rest[name]), "saved is what evaluation sees"
            for name, saved in training.model.blocks.state_dict().items():
                assert torch.equal(saved, rest[f"blocks.{name}"])
        loss.backward()
        gradients.append({n: p.grad.clone() for n, p in training.model.named_parameters()})
    assert same(*gradients)


def pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@latent
@pytest.mark.parametrize("make", [copy.deepcopy, pickled], ids=["deepcopy", "torch.save"])
@pytest.mark.parametrize("when", ["after a forward pass", "after a step that broke off"])
def test_copies_of_the_model_have_what_evaluation_sees(recipe, make, when):
    training = Training(recipe).run(10)
    rest = training.weights()
    if when == "after a forward pass":
        between(training)
    else:
        break_off(training)
        rest = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    copied = make(training.model)
    assert same({n: p.detach() for n, p in copied.named_parameters()}, rest)
    assert same(dict(copied.state_dict()), rest)
    x = training.inputs[0]
    assert torch.equal(copied.train()(x), training.model.eval()(x)), "hooks are not copied"


@pytest.mark.parametrize(
    "disturb",
    [
        lambda training: copy.deepcopy(training.model),
        lambda training: training.model.eval()(training.inputs[0]),
        lambda training: training.pruner.detach(),
    ],
    ids=["deepcopy", "evaluation", "detach"],
)
def test_a_sample_that_is_taken_back_before_its_backward_is_said_by_autograd(disturb):
    """And not computed from other weights than the forward pass was."""
    training = Training(LATENT["l0"]).run(10)
    loss = between(training)
    disturb(training)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    training = Training(LATENT["l0"]).run(10)
    training.gradients()
    disturb(training)
    if training.pruner.attached:
        training.model.train()
        training.step()
        assert training.pruner.step == 11


@latent
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
@pytest.mark.parametrize("where", [between, break_off], ids=["over a sample", "into a step"])
def test_weights_loaded_where_others_stood_stay(recipe, where):
    """A checkpoint is loaded, and then the pruner of a training that broke off is detached."""
    training = Training(recipe).run(10)
    where(training)
    weights = {name: w * 2 for name, w in Training(None).model.state_dict().items()}
    training.model.load_state_dict(weights)
    training.pruner.detach()
    assert same(training.weights(), weights)


def test_a_replica_of_the_model_cannot_hold_samples():
    """DataParallel copies the weights before the forward hooks run."""
    training = Training(LATENT["l0"])
    training.model._is_replica = True
    with pytest.raises(ValueError, match=r"DataParallel has copied .*one process a GPU"):
        training.model(training.inputs[0])
