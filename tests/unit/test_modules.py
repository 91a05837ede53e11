"""A model under its wrappers, and what hooks say of it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.parallel import DataParallel

from sentei.modules import config_of, plain_name, taught, teaching, unwrapped


class Model(nn.Module):
    """Two submodules, so that it is no wrapper itself."""

    config = "its config"

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)


WRAPPERS = {
    "none": lambda model: model,
    "compile": torch.compile,
    "parallel": DataParallel,
    "both": lambda model: torch.compile(DataParallel(torch.compile(model))),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_the_model_is_seen_through_its_wrappers(wrap):
    model = Model()
    assert unwrapped(wrap(model)) is model
    assert config_of(wrap(model)) == "its config"


def test_a_model_without_a_config_has_none():
    assert config_of(nn.Linear(2, 2)) is None


def test_what_is_called_like_a_wrapper_and_has_a_sister_is_none():
    model = nn.Module()
    model.module, model.head = nn.Linear(2, 2), nn.Linear(2, 2)
    assert unwrapped(model) is model
    model = nn.Sequential(nn.Linear(2, 2))
    assert unwrapped(model) is model


def test_plain_name():
    assert plain_name("_orig_mod.module.layers.0._orig_mod.up.weight") == "layers.0.up.weight"
    assert plain_name("my_module.submodule.weight") == "my_module.submodule.weight"
    assert plain_name("base_layer.module.weight", {"base_layer"}) == "module.weight"


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_plain_names_are_those_of_the_model(wrap):
    model = Model()
    names = [name for name, _ in model.named_parameters()]
    assert [plain_name(name) for name, _ in wrap(model).named_parameters()] == names


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_who_is_taught(wrap):
    """The mark is on the hook, on a function as on a method, and goes with it."""

    class Teacher:
        @teaching
        def after(self, module, args, output):
            return None

    @teaching
    def after(module, args, output):
        return None

    model = Model()
    model.register_forward_hook(lambda module, args, output: None)
    assert not taught(wrap(model))
    for hook in (Teacher().after, after):
        handle = model.register_forward_hook(hook)
        assert taught(wrap(model)) and taught(copy.deepcopy(model))
        handle.remove()
        assert not taught(wrap(model))
