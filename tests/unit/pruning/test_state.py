"""A pruner's state: whose it is, and where it does not belong."""

from __future__ import annotations

import pytest
import torch

import sentei
from helpers.pruning import LATENT, MAGNITUDE, MOVEMENT, PLATON, same, snapshot, stopped, unchanged
from sentei import serialization, tensors
from sentei.pruning.state import PruningState
from sentei.testing import STEPS, Network, Training


@pytest.mark.parametrize(
    ("recipe", "steps", "difference"),
    [
        (sentei.platon(0.6, window=2, every=2), STEPS, "recipe.schedule.sparsity was 0.7, is 0.6"),
        (sentei.platon(0.7, window=3, every=2), STEPS, "recipe.score.window was 2, is 3"),
        (MAGNITUDE, STEPS, "recipe.method was 'platon', is 'magnitude'"),
        (PLATON, STEPS + 2, "total_steps was 40, is 42"),
    ],
)
def test_state_of_another_run(recipe, steps, difference):
    _, state = stopped()
    other = Training(recipe, steps=steps).run(6)
    before = snapshot(other.pruner)
    with pytest.raises(ValueError) as caught:
        other.pruner.load_state_dict(state)
    assert str(caught.value) == f"cannot resume: {difference}"
    assert unchanged(other.pruner, before)
    other.step()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: masks.pop("blocks.2.weight"), "blocks.2.weight is in the scope now"),
        (
            lambda masks: masks.update(extra=torch.ones(2) > 0),
            "extra was pruned and is not in the scope now",
        ),
        (
            lambda masks: masks.update({"blocks.1.weight": torch.ones(3, 16) > 0}),
            r"blocks.1.weight was \(3, 16\) and is \(16, 16\) now",
        ),
    ],
)
def test_state_of_another_scope(change, message):
    training, state = stopped()
    before = snapshot(training.pruner)
    change(state["masks"])
    with pytest.raises(ValueError, match=message):
        training.pruner.load_state_dict(state)
    assert unchanged(training.pruner, before)


def test_state_of_another_format():
    training, state = stopped()
    with pytest.raises(ValueError, match="state of format 99"):
        training.pruner.load_state_dict(state | {"format": 99})


@pytest.mark.parametrize("recipe", [PLATON, MOVEMENT, LATENT["l0"]], ids=lambda r: r.method)
def test_wrong_weights_are_refused_at_the_next_step(recipe):
    first, state = stopped(recipe)
    second = Training(recipe)
    second.pruner.load_state_dict(state)
    before = second.weights()
    with pytest.raises(
        ValueError, match="cannot resume at step 20: the prunable weights are not what"
    ):
        second.step()
    assert same(before, second.weights())
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.zero_grad()
    second.step()
    assert second.pruner.step == 21


KEYS = [key for key in stopped(steps=4)[1] if key not in ("format", "state_dtype")]


@pytest.mark.parametrize("key", KEYS)
def test_a_state_with_a_part_missing(key):
    training, state = stopped()
    before = snapshot(training.pruner)
    del state[key]
    with pytest.raises(ValueError, match=f"not a whole pruner state: it has no '{key}'"):
        training.pruner.load_state_dict(state)
    assert unchanged(training.pruner, before)


def fitted(model, recipe, total_steps=20):
    state = PruningState(recipe.fit(model, total_steps), total_steps)
    state.allocate()
    return state


def test_pieces_are_views_that_cover_a_site_once(monkeypatch):
    monkeypatch.setattr(tensors, "CHUNK", 100)
    state = fitted(Network(), LATENT["movement"])
    site_state = next(iter(state.sites.values()))
    pieces = list(state.pieces(site_state))
    assert [piece.span for piece in pieces] == [slice(0, 100), slice(100, 200), slice(200, 256)]
    for piece in pieces:
        sizes = {piece.dense.numel(), piece.keep.numel(), piece.scratch.numel()}
        assert sizes == {len(range(256)[piece.span])}
        piece.dense.fill_(3.0)
        piece.keep.fill_(False)
        piece.memory["score"].fill_(4.0)
        piece.of(site_state.weight).fill_(5.0)
    assert (site_state.latent == 3).all() and not site_state.keep.any()
    assert (site_state.memory["score"] == 4).all() and (site_state.weight == 5).all()


def test_a_piece_shows_every_weight_what_its_unit_remembers():
    state = fitted(Network(), sentei.l0(0.5, pattern="row"))
    [unit] = [unit for unit in state.units if unit.group.sites[0].name == "blocks.1.weight"]
    assert unit.memory["score"].shape == (16,)
    unit.memory["score"].copy_(torch.arange(16.0))
    [piece] = state.pieces(state.sites[unit.group.sites[0]])
    assert piece.memory["score"].view(16, 16).tolist() == [[float(i)] * 16 for i in range(16)]


def test_swapping_copies_nothing():
    state = fitted(Network(), LATENT["movement"])
    site_state = next(iter(state.sites.values()))
    module, latent = site_state.weight.data_ptr(), site_state.latent.data_ptr()
    assert module != latent
    site_state.swap()
    assert (site_state.weight.data_ptr(), site_state.latent.data_ptr()) == (latent, module)


def test_scratch_is_one_buffer():
    state = fitted(Network(), MAGNITUDE)
    weight = torch.zeros(300)
    first = state.scratch(weight, 300)
    assert state.scratch(weight, 100).data_ptr() == first.data_ptr()
    assert first.shape == (300,) and state.scratch(weight, 301).shape == (301,)
    assert state.scratch(weight.half(), 10).dtype == torch.float32
    assert state.scratch(weight.double(), 10).dtype == torch.float64


def test_a_released_state_keeps_no_tensor_of_a_weights_size():
    training = Training(LATENT["l0"]).run()
    training.finish()
    assert training.pruner.masks == {}
    state = training.pruner._state
    assert (state.sites, state.units, state._scratch) == ({}, [], None)


FULL, HALF = torch.float32, torch.bfloat16
KEEPING = {
    "platon": (PLATON, FULL),
    "platon in bf16": (PLATON, HALF),
    "magnitude": (MAGNITUDE, FULL),
    "magnitude in bf16": (MAGNITUDE, HALF),
    "movement": (MOVEMENT, FULL),
    "l0": (LATENT["l0"], FULL),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("pattern", ["unstructured", "4x4", "row"])
@pytest.mark.parametrize(("recipe", "state_dtype"), KEEPING.values(), ids=KEEPING.keys())
def test_what_is_kept_is_as_large_as_is_told_before(recipe, state_dtype, pattern, dtype):
    recipe = serialization.override(recipe, [f"pattern={pattern}"])
    pruner = Training(recipe, dtype=dtype, state_dtype=state_dtype).pruner
    state = pruner.state_dict()
    tensors = [*state["masks"].values()]
    for part in ("memory", "units"):
        tensors += [tensor for of in state[part].values() for tensor in of.values()]
    assert sum(tensor.nbytes for tensor in tensors) == pruner._state.fitted.state_bytes
