"""What optimizers and their wrappers do to a step."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from torch import nn

import sentei
from helpers.pruning import MAGNITUDE, MOVEMENT, PLATON, same
from sentei.pruning.optimizers import (
    check_keeps_gradients,
    learning_rates,
    overflowed,
    stepping,
    unscale_,
)
from sentei.run.optimizers import BertAdam, BertAdamax
from sentei.testing import STEPS, Training


@pytest.mark.parametrize(
    "thing",
    [None, 3, nn.Linear(2, 2), object()],
    ids=["none", "number", "module", "object"],
)
def test_attach_wants_an_optimizer(thing):
    pruner = sentei.Pruner(Training(None).model, PLATON, total_steps=STEPS)
    with pytest.raises(ValueError, match=f"torch optimizer, got {type(thing).__name__}"):
        pruner.attach(thing)


@pytest.mark.parametrize(
    ("left_out", "message"), [(1, "is not in the"), (3, "and 2 more prunable")]
)
def test_attach_wants_every_prunable_weight(left_out, message):
    model = Training(None).model
    pruner = sentei.Pruner(model, PLATON, total_steps=STEPS)
    missing = [f"blocks.{i}.weight" for i in range(left_out)]
    parameters = [p for name, p in model.named_parameters() if name not in missing]
    with pytest.raises(ValueError, match=rf"^blocks\.0\.weight {message}"):
        pruner.attach(torch.optim.SGD(parameters))


class DeepSpeedZeroOptimizer(torch.optim.SGD):
    pass


def test_deepspeed_is_refused():
    model = Training(None).model
    pruner = sentei.Pruner(model, PLATON, total_steps=STEPS)
    with pytest.raises(ValueError, match="DeepSpeed engines"):
        pruner.attach(DeepSpeedZeroOptimizer(model.parameters()))


@pytest.mark.parametrize("iterate", ["new", "old"])
def test_accelerate_wraps_the_optimizer(iterate):
    recipe = sentei.platon(0.7, window=2, every=2, iterate=iterate)
    plain, wrapped = Training(recipe), Training(None)
    accelerator = Accelerator(cpu=True)
    wrapped.model, wrapped.optimizer = accelerator.prepare(wrapped.model, wrapped.optimizer)
    wrapped.pruner = sentei.Pruner(wrapped.model, recipe, total_steps=STEPS)
    wrapped.pruner.attach(wrapped.optimizer)
    assert same(plain.run().weights(), wrapped.run().weights())
    assert wrapped.finish().sparsity == pytest.approx(0.7, abs=1e-3)


def test_gradients_that_the_optimizer_changes_are_refused():
    training = Training(None)
    parameters = list(training.model.parameters())
    nesterov = {"lr": 1e-2, "momentum": 0.9, "nesterov": True}
    pruner = sentei.Pruner(training.model, PLATON, total_steps=STEPS)
    with pytest.raises(ValueError, match=r"foreach=False, or use score.iterate='old'"):
        pruner.attach(torch.optim.SGD(parameters, foreach=True, **nesterov))
    pruner.attach(torch.optim.SGD(parameters, foreach=False, **nesterov))


OPTIMIZERS = {
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=1e-2, weight_decay=0.01),
    "BertAdam": lambda p: BertAdam(p, lr=1e-2, weight_decay=0.01),
    "BertAdamax": lambda p: BertAdamax(p, lr=1e-2, weight_decay=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=1e-2),
    "groups": lambda p: torch.optim.AdamW(
        [{"params": p[:3], "weight_decay": 0.0}, {"params": p[3:], "lr": 1e-3}], lr=1e-2
    ),
}


@pytest.mark.parametrize("recipe", [PLATON, MAGNITUDE, MOVEMENT], ids=lambda r: r.method)
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_optimizers(make, recipe):
    training = Training(None)
    training.optimizer = make(list(training.model.parameters()))
    training.pruner = sentei.Pruner(training.model, recipe, total_steps=STEPS)
    training.pruner.attach(training.optimizer)
    for number in range(1, STEPS + 1):
        training.step()
        assert training.pruner.step == number
        if training.pruner.updates and training.pruner.updates[-1].step == number:
            count = round(training.pruner.prunable * training.pruner.target)
            assert round(training.pruner.sparsity * training.pruner.prunable) == count
    assert training.finish().pruned == round(0.7 * training.pruner.prunable)


class Wrapped:
    """Like Accelerate's wrapper."""

    def __init__(self, optimizer):
        self.optimizer = optimizer


def parameters():
    return [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]


def test_the_optimizer_in_plain_wrappers_is_the_one_that_steps():
    optimizer = torch.optim.SGD(parameters())
    with pytest.warns(sentei.SenteiWarning, match="attached to the SGD in Wrapped"):
        assert stepping(Wrapped(Wrapped(optimizer)), []) is optimizer
    assert stepping(optimizer, []) is optimizer


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"foreach": True, "nesterov": True}, True),
        ({"foreach": True, "nesterov": True, "weight_decay": 0.1}, False),
        ({"foreach": True}, False),
        ({"nesterov": True}, False),
        ({"fused": True, "nesterov": True}, False),
    ],
    ids=str,
)
def test_nesterov_on_many_tensors_at_once_keeps_no_gradients(settings, refused):
    """Held against what torch does: the refused one changes its gradients, and no other."""
    weights = parameters()
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, **settings)
    for _ in range(2):
        for weight in weights:
            weight.grad = torch.ones(2)
        optimizer.step()
    changed = not all(torch.equal(weight.grad, torch.ones(2)) for weight in weights)
    assert changed == refused
    if refused:
        with pytest.raises(ValueError, match="foreach=False"):
            check_keeps_gradients(optimizer)
    else:
        check_keeps_gradients(optimizer)


def test_learning_rates_are_those_of_the_groups():
    one, two, three = parameters()
    groups = [{"params": [one, two], "lr": 0.5}, {"params": [three]}]
    rates = learning_rates(torch.optim.SGD(groups, lr=0.25))
    assert rates == {id(one): 0.5, id(two): 0.5, id(three): 0.25}


def test_an_overflow_is_what_the_scaler_left_on_the_optimizer():
    optimizer = torch.optim.SGD(parameters())
    assert not overflowed(optimizer)
    optimizer.found_inf = torch.tensor(0.0)
    assert not overflowed(optimizer)
    optimizer.found_inf = torch.tensor(1.0)
    assert overflowed(optimizer)


def test_gradients_are_unscaled_once():
    weights = parameters()
    for weight in weights[:2]:
        weight.grad = torch.tensor([8.0, -4.0])
    optimizer = torch.optim.SGD(weights)
    unscale_(optimizer)
    assert weights[0].grad.tolist() == [8.0, -4.0]
    optimizer.grad_scale = torch.tensor(4.0)
    for _ in range(2):
        unscale_(optimizer)
        assert [weight.grad.tolist() for weight in weights[:2]] == [[2.0, -1.0]] * 2
        assert weights[2].grad is None and optimizer.grad_scale is None
