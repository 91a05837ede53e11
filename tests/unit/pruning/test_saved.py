"""A saved state: everything of it is checked before anything is taken over."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import sentei
from helpers.pruning import LATENT, PLATON, same, snapshot, stopped, unchanged
from sentei.testing import STEPS, Training

ROWS = sentei.l0(0.7, pattern="row")
RECIPES = {"platon": PLATON, "l0": LATENT["l0"], "leap": LATENT["leap"], "rows": ROWS}
recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())

PLAIN = {
    "recipe": [{}, None, 3, [], "x", {"schedule": None}, {"schedule": 3}],
    "total_steps": [0, -1, "40", None, 40.0, True, 10**30],
    "processes": [0, "1", None],
    "step": [-1, 10**9, "20", 20.5, None, [], True],
    "pruned": [-5, 0, 10**9, "711", None, 711.0],
    "settled": ["yes", 1, None, []],
    "weights": ["x", -1, 2**32, None, 1.5],
    "updates": [
        3,
        None,
        [],
        {},
        [3],
        [{}],
        [{"step": "x"}],
        lambda updates: [*updates[1:], updates[0]],
        lambda updates: [*updates, updates[-1]],
        lambda updates: [*updates, updates[-1] | {"step": 30}],
        lambda updates: [*updates[:-1], updates[-1] | {"pruned": 3}],
        lambda updates: [*updates[:-1], updates[-1] | {"other": 3}],
    ],
    "masks": [3, None, [], {}, {"blocks.0.weight": 3}],
    "memory": [3, None, [], {}, {"blocks.0.weight": 3}, {"blocks.0.weight": {"window": "x"}}],
    "units": [3, None, [], {"x": {}}, {"x": {"keep": torch.ones(3)}}, {"x": 3}],
    "budget": [3, None, [], {"sigma": 3}, {"other": torch.ones(4)}],
}


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, values in PLAIN.items() for value in values],
    ids=lambda value: "changed" if callable(value) else str(value)[:30],
)
def test_a_value_that_no_pruner_saves_is_refused_and_nothing_changes(key, value):
    training, state = stopped()
    before = snapshot(training.pruner)
    bad = state | {key: value(state[key]) if callable(value) else value}
    if key == "units" and value == {"x": {}}:
        return  # names nothing
    with pytest.raises(ValueError) as caught:
        training.pruner.load_state_dict(bad)
    assert len(str(caught.value)) < 500
    assert unchanged(training.pruner, before)
    training.step()


@recipes
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor[None],
        lambda tensor: tensor.reshape(-1)[:1],
        lambda tensor: tensor.to(torch.float16),
        lambda tensor: None,
    ],
    ids=["deeper", "shorter", "of another type", "no tensor"],
)
def test_every_tensor_must_be_what_the_pruner_keeps(recipe, change):
    training, state = stopped(recipe, 12)
    before = snapshot(training.pruner)

    def paths(value, path=()):
        if isinstance(value, torch.Tensor):
            yield path
        elif isinstance(value, dict):
            for key in value:
                yield from paths(value[key], (*path, key))

    for path in list(paths(state)):
        bad = copy.deepcopy(state)
        place = bad
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = change(place[path[-1]])
        with pytest.raises(ValueError):
            training.pruner.load_state_dict(bad)
        assert unchanged(training.pruner, before), path


@pytest.mark.parametrize("state", [None, 3, [], "x", {}, {"format": [6]}])
def test_what_is_no_state_at_all(state):
    training, _ = stopped()
    with pytest.raises(ValueError, match="pruner state"):
        training.pruner.load_state_dict(state)


@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_a_state_that_is_refused_before_attaching_leaves_no_memory():
    """What is kept beside the weights is made of those that are there when training begins."""
    _, state = stopped(LATENT["movement"])
    state["masks"].pop("blocks.2.weight")
    training = Training(None)
    pruner = sentei.Pruner(training.model, LATENT["movement"], total_steps=STEPS)
    with pytest.raises(ValueError):
        pruner.load_state_dict(state)
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter.mul_(2)
    pruner.attach(training.optimizer)
    latent = pruner.state_dict()["memory"]["blocks.0.weight"]["latent"]
    assert torch.equal(latent, training.model.blocks[0].weight)


@recipes
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_any_flipped_bit_of_the_file_is_refused(recipe, tmp_path):
    training, _ = stopped(recipe, 12)
    path = tmp_path / "pruner.safetensors"
    training.pruner.save(path)
    content = path.read_bytes()
    before = snapshot(training.pruner)
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(len(content), (60,), generator=generator).tolist():
        harmed = bytearray(content)
        harmed[place] ^= 1 << (place % 8)
        path.write_bytes(harmed)
        with pytest.raises(ValueError, match="pruner's state"):
            training.pruner.load(path)
        assert unchanged(training.pruner, before)
    path.write_bytes(content)
    training.pruner.load(path)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: json.dumps(json.loads(text) | {"pruned": 3}),
        lambda text: json.dumps(json.loads(text) | {"masks": 3}),
        lambda text: json.dumps(json.loads(text) | {"recipe": None}),
        lambda text: text[:-1] + ', "step": 3}',
        lambda text: text[:-1] + f', "more": {DEEP}}}',
        lambda text: DEEP,
        lambda text: "null",
        lambda text: "",
    ],
    ids=[
        "a number",
        "a tensor's name",
        "no recipe",
        "a key twice",
        "deep",
        "deeper",
        "null",
        "empty",
    ],
)
@pytest.mark.parametrize("checksum", ["old", "none"])
def test_edited_plain_values_of_the_file_are_refused(edit, checksum, tmp_path):
    training, _ = stopped()
    path = tmp_path / "pruner.safetensors"
    training.pruner.save(path)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    metadata["sentei"] = edit(metadata["sentei"])
    if checksum == "none":
        del metadata["checksum"]
    save_file(tensors, path, metadata=metadata)
    before = snapshot(training.pruner)
    with pytest.raises(ValueError) as caught:
        training.pruner.load(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000
    assert unchanged(training.pruner, before)


def test_another_number_of_processes_is_said(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    _, state = stopped()
    monkeypatch.delenv("WORLD_SIZE")
    other = Training(PLATON, steps=2 * STEPS)
    with pytest.raises(
        ValueError,
        match=r"total_steps was 40, is 80; 2 trained together, and 1 do now: start as many",
    ):
        other.pruner.load_state_dict(state)


@pytest.mark.parametrize("stop", [11, 23, 35])
def test_a_resumed_state_is_the_one_that_was_never_stopped(stop):
    """Whole, with what only makes decisions faster: random scores stand still for most of them."""
    recipe = sentei.random(0.7, every=2)
    whole = Training(recipe).run()
    first = Training(recipe).run(stop)
    second = Training(recipe)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.pruner.load_state_dict(snapshot(first.pruner))
    second.count = stop
    second.run(STEPS - stop)
    assert same(second.pruner.state_dict(), whole.pruner.state_dict())
