"""Optimizers whose state is of few bits: the pruner leaves it alone, and all else is as ever."""

from __future__ import annotations

import importlib
import io
import warnings

import pytest
import torch
from torch.optim import Optimizer

import sentei
from helpers.pruning import MAGNITUDE, MOVEMENT, PLATON
from helpers.quantised import Adam8, Int8
from sentei.testing import STEPS, Network, Training

WIDTH = 64
"""Matrices of 4,096 weights: of fewer, torchao and bitsandbytes keep the state in float32."""

RECIPES = pytest.mark.parametrize(
    "recipe", [PLATON, MAGNITUDE, MOVEMENT], ids=lambda recipe: recipe.method
)
NAMES = (
    "helpers.quantised.Adam8",
    "torchao.optim.AdamW8bit",
    "torchao.optim.AdamW4bit",
    "torchao.optim.AdamWFp8",
    "bitsandbytes.optim.AdamW8bit",
)


@pytest.fixture(params=NAMES)
def kind(request):
    """A class of optimizers; torchao's without its compiled step, which takes a minute to make."""
    module, _, name = request.param.rpartition(".")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            library = importlib.import_module(module)
    except ImportError:
        pytest.skip(f"{module.split('.')[0]} is not installed")
    with torch.compiler.set_stance("force_eager"):
        yield getattr(library, name)


def begin(recipe, kind) -> Training:
    training = Training(None)
    torch.manual_seed(0)
    training.model = Network(WIDTH)
    training.optimizer = kind(list(training.model.parameters()), lr=1e-3)
    training.pruner = sentei.Pruner(training.model, recipe, total_steps=STEPS)
    training.pruner.attach(training.optimizer)
    return training


def is_quantised(tensor) -> bool:
    own = isinstance(tensor, torch.Tensor) and type(tensor) is not torch.Tensor
    return own or getattr(tensor, "dtype", None) == torch.uint8


@RECIPES
def test_the_count_is_exact_and_resuming_ends_in_the_same_bits(kind, recipe):
    first = begin(recipe, kind)
    for _ in range(STEPS // 2):
        first.step()
        if first.pruner.updates and first.pruner.updates[-1].step == first.pruner.step:
            count = round(first.pruner.prunable * first.pruner.target)
            assert round(first.pruner.sparsity * first.pruner.prunable) == count
    states = [first.optimizer.state[block.weight] for block in first.model.blocks]
    assert all(any(is_quantised(tensor) for tensor in state.values()) for state in states)
    file, second = io.BytesIO(), begin(recipe, kind)
    torch.save(first.optimizer.state_dict(), file)
    file.seek(0)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(torch.load(file, weights_only=False))
    second.pruner.load_state_dict(first.pruner.state_dict())
    second.count = first.count
    for training in (first, second):
        training.run(STEPS - training.count)
    one, other = first.weights(), second.weights()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert first.finish().pruned == round(0.7 * 4 * WIDTH**2)


def test_gradients_are_as_they_were_after_a_step(kind):
    training = begin(PLATON, kind)
    training.gradients()
    before = [parameter.grad.clone() for parameter in training.model.parameters()]
    training.optimizer.step()
    after = [parameter.grad for parameter in training.model.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("recipe", [PLATON, MAGNITUDE], ids=lambda recipe: recipe.method)
def test_the_state_is_what_it_would_be_without_a_pruner(recipe):
    """Until the first decision; a touch of the pruner's would be an error of the tensor."""
    pruned, plain = begin(recipe, Adam8), begin(recipe, Adam8)
    plain.pruner.detach()
    first = recipe.schedule.first_update(STEPS)
    states = [t.run(first).optimizer.state[t.model.blocks[0].weight] for t in (pruned, plain)]
    for name in ("mean", "square"):
        one, other = (state[name] for state in states)
        assert isinstance(one, Int8)
        assert torch.equal(one.codes, other.codes) and torch.equal(one.scales, other.scales)
    assert pruned.pruner.pruned


class CPUOffloadOptimizer(Optimizer):
    """Like torchao's: it steps copies."""

    __module__ = "torchao.optim.cpu_offload"


def test_copies_in_the_hosts_memory_are_refused():
    training = Training(None)
    pruner = sentei.Pruner(training.model, PLATON, total_steps=STEPS)
    with pytest.raises(ValueError, match="CPUOffloadOptimizer steps copies of the weights"):
        pruner.attach(CPUOffloadOptimizer(training.model.parameters(), {}))
