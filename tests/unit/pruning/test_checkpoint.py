"""A pruner's state as a file: what goes in comes out, and damage is named."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sentei.methods import known
from sentei.pruning import checkpoint as states
from sentei.serialization import override, to_dict
from sentei.testing import STEPS, Training

METHODS = pytest.mark.parametrize("method", known(), ids=lambda method: method.name)


def small(method):
    recipe = method.build(0.7)
    data = to_dict(recipe)
    settings = {"schedule.every": 2, "score.window": 2, "schedule.stages": 10}
    present = {k: v for k, v in settings.items() if k.split(".")[1] in data[k.split(".")[0]]}
    return override(recipe, [f"{path}={value}" for path, value in present.items()])


def same(a, b):
    """Equal plain values, and tensors of equal bits and dtype, at any depth."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def test_nested_tensors_and_plain_values(tmp_path):
    state = {
        "step": 3,
        "deep": {"a.b": {"x": torch.arange(3.0), "y": torch.ones(2, 2, dtype=torch.bool)}},
        "flat": {"z": torch.tensor(1.5, dtype=torch.float64)},
        "list": [{"pruned": 1, "threshold": None}],
        "empty": {},
    }
    states.write(state, tmp_path / "s")
    assert same(states.read(tmp_path / "s"), state)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, "r.a.b was [1], is [2]"),
        ({"a": 1}, {}, "r.a was 1, is None"),
        ({}, {"a": 1}, "r.a was None, is 1"),
    ],
)
def test_first_difference(old, new, told):
    assert states.first_difference(old, new, "r") == told


@METHODS
@pytest.mark.filterwarnings("ignore::sentei.SenteiWarning")
def test_every_method_resumes_from_its_file(method, tmp_path):
    recipe, stop = small(method), 23
    whole = Training(recipe).run()
    first = Training(recipe).run(stop)
    first.pruner.save(tmp_path / "p")
    before = copy.deepcopy(first.pruner.state_dict())
    assert same(states.read(tmp_path / "p"), before)
    second = Training(recipe)
    second.gradients()  # a forward pass before the state is there
    second.optimizer.zero_grad()
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    second.pruner.load(tmp_path / "p")
    second.count = stop
    second.run(STEPS - stop)
    assert same(second.weights(), whole.weights())
    assert second.finish() == whole.finish()


def without(path, key):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys() if name != key}
        assert key in file.keys()
    save_file(tensors, path, metadata=metadata)


@METHODS
def test_a_file_without_one_of_its_tensors_is_refused_whole(method, tmp_path):
    run = Training(small(method)).run(9)
    run.pruner.save(tmp_path / "p")
    content = (tmp_path / "p").read_bytes()
    with safe_open(tmp_path / "p", "pt") as file:
        keys = [key for key in file.keys() if "blocks.0" in key or key.startswith("budget")]
    assert keys
    run.run(2)
    before = copy.deepcopy(run.pruner.state_dict())
    for key in keys:
        (tmp_path / "p").write_bytes(content)
        without(tmp_path / "p", key)
        with pytest.raises(ValueError):
            run.pruner.load(tmp_path / "p")
        assert same(run.pruner.state_dict(), before), key


@pytest.mark.parametrize(
    "plain",
    ["{}", "{", "[]", "3", json.dumps({"format": 2})],
)
def test_a_file_of_something_else(plain, tmp_path):
    run = Training(small(known("leap")[0])).run(5)
    save_file({"masks:x": torch.ones(1)}, tmp_path / "p", metadata={"sentei": plain})
    with pytest.raises(ValueError, match="p"):
        run.pruner.load(tmp_path / "p")
    run.step()
