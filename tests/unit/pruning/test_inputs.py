"""The inputs of layers, as they are observed: which count, and how they are summed."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import sentei
from helpers.zoo import ZOO
from sentei.parts.inputs import Inputs, linear_maps
from sentei.parts.reconstruction import LeastSquares
from sentei.parts.scope import Scope
from sentei.pruning.inputs import InputState, LayerInputs, observed_bytes, width_of

EVERYTHING = Inputs()
MATRICES = Scope(include=("*.weight",))


def rebuilt(inputs=EVERYTHING, scope=MATRICES):
    """A recipe that wants all products."""
    parts = {"scope": scope, "reconstruction": LeastSquares(inputs=inputs)}
    return sentei.magnitude(0.5).model_copy(update=parts)


def watching(model, inputs=EVERYTHING, scope=MATRICES):
    """What is observed of a model, and the states that it is taken into, by name of a site."""
    sites = scope.resolve(model).sites
    maps = linear_maps(model, sites)
    states = {site: InputState.empty(site, rebuilt(inputs)) for site in maps}
    watched = LayerInputs(model, maps, inputs)
    watched.attach()
    watched.watch(states, 1)
    return watched, {site.name: state for site, state in states.items()}


class Two(nn.Module):
    """Two linear maps, each under a checkpoint if asked."""

    def __init__(self, checkpoints=None):
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)
        self.checkpoints = checkpoints

    def forward(self, x, attention_mask=None):
        if self.checkpoints is None:
            return self.second(torch.tanh(self.first(x)))
        one = checkpoint(self.first, x, use_reentrant=self.checkpoints)
        return checkpoint(self.second, torch.tanh(one), use_reentrant=self.checkpoints)


def observed(state):
    return state.gram[0], float(state.tokens)


@pytest.mark.parametrize("checkpoints", [None, True, False], ids=["plain", "reentrant", "not"])
def test_every_forward_pass_of_training_counts_once(checkpoints):
    model = Two(checkpoints)
    watched, states = watching(model)
    x = torch.randn(3, 2, 6, requires_grad=True)
    model(x).sum().backward()
    model(x).sum().backward()
    gram, tokens = observed(states["first.weight"])
    rows = x.detach().reshape(-1, 6)
    assert tokens == 12
    torch.testing.assert_close(gram, 2 * rows.T @ rows, rtol=0.02, atol=0.02)
    watched.rest()
    model(x)
    assert observed(states["first.weight"])[1] == 12


def test_evaluation_does_not_count():
    model = Two()
    _, states = watching(model)
    with torch.no_grad():
        model.eval()(torch.ones(2, 2, 6))
    assert observed(states["second.weight"])[1] == 0
    model(torch.ones(2, 2, 6))  # trained in evaluation mode, as without dropout
    assert observed(states["second.weight"])[1] == 4


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32], ids=str)
def test_padding_does_not_count(by_name, dtype):
    model, x = Two(), torch.randn(2, 3, 6)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).to(dtype)
    _, states = watching(model)
    model(x, attention_mask=mask) if by_name else model(x, mask)
    gram, tokens = observed(states["first.weight"])
    rows = x.reshape(-1, 6)[[0, 1, 3]]
    assert tokens == 3
    torch.testing.assert_close(gram, rows.T @ rows, rtol=0.02, atol=0.02)
    model(x)  # the mask was that of the pass before
    assert observed(states["first.weight"])[1] == 9


def test_flat_inputs_know_their_padding_too():
    model, x = Two(), torch.randn(4, 6)
    _, states = watching(model)
    model(x, attention_mask=torch.tensor([[1, 1], [0, 1]]))
    assert observed(states["first.weight"])[1] == 3


def test_many_tokens_are_a_sample_that_favours_no_place():
    model = Two()
    watched, states = watching(model, Inputs(tokens=16))
    places = torch.eye(6).repeat(8, 16, 1)[:, :64]  # which place in a sequence, by its input
    for step in range(1, 7):
        watched.watch(dict(zip(watched._states, states.values(), strict=True)), step)
        model(places)
    counts = states["first.weight"].gram[0].diagonal()
    assert float(counts.sum()) <= 6 * 16
    assert counts.min() > 0.5 * counts.max()


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5", "vit"])
def test_models_of_families(name):
    """Shapes and symmetry; matrices that are stored transposed count their rows as inputs."""
    specimen = ZOO[name]
    model = specimen.build().train()
    inputs = Inputs(width=10)
    _, states = watching(model, inputs, Scope())
    with torch.autocast("cpu", torch.bfloat16):
        model(**specimen.inputs())
    for site, state in zip(Scope().resolve(model).sites, states.values(), strict=True):
        widths = [gram.shape[0] for gram in state.gram]
        assert sum(widths) == width_of(site) and max(widths) <= 10
        assert state.tokens > 0
        for gram in state.gram:
            assert gram.dtype == torch.float32
            torch.testing.assert_close(gram, gram.T)
            assert gram.diagonal().sum() > 0


def test_calls_at_once_keep_their_masks_apart():
    """As DataParallel makes them, a thread each; what is on another device does not count."""
    model, x = Two(), torch.ones(1, 3, 6)
    watched, states = watching(model)
    inside, outside = threading.Barrier(2), threading.Barrier(2)

    class Waiting(nn.Module):
        def forward(self, x):
            inside.wait(10)
            outside.wait(10)
            return x

    model.first = nn.Sequential(Waiting(), model.first)
    masks = [torch.tensor([[1, 1, 1]]), torch.tensor([[1, 0, 0]])]
    threads = [threading.Thread(target=model, args=(x, mask)) for mask in masks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert observed(states["first.weight"])[1] == 4
    for site in watched._states:
        watched.observe(site, torch.ones(1, 3, 6, device="meta"))
    assert observed(states["first.weight"])[1] == 4


def test_nothing_to_observe_is_said():
    model = nn.Sequential(nn.Embedding(4, 4))
    with pytest.raises(ValueError, match="none of the prunable weights is the matrix of a linear"):
        rebuilt(scope=Scope(include=("*weight",))).fit(model, 100)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_memory_is_what_was_predicted(name):
    model, inputs = ZOO[name].build(), Inputs(width=10)
    _, states = watching(model, inputs, Scope())
    held = sum(one.nbytes for state in states.values() for one in state.tensors.values())
    assert held == observed_bytes(model, Scope().resolve(model).sites, rebuilt(inputs)) > 0
