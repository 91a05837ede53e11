"""A model beside another, of the same weights."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def twin(model: Module) -> Module:
    """A model of modules of its own and of the parameters of another, in evaluation.

    What is done to its modules does not touch the other; its weights are the other's.
    """
    return _twin(model, {})  # type: ignore[no-any-return]


def _twin(module: Any, done: dict[int, Any]) -> Any:
    if id(module) in done:
        return done[id(module)]
    new = done[id(module)] = object.__new__(type(module))
    state = {
        # hooks, parameters and buffers are dicts that belong to one module
        name: type(value)(value) if isinstance(value, dict | OrderedDict) else value
        for name, value in vars(module).items()
        if name != "forward"  # another's wrapper around it, which would run the other model
    }
    state["_modules"] = {
        name: child if child is None else _twin(child, done)
        for name, child in module._modules.items()
    }
    state["training"] = False
    new.__dict__.update(state)
    return new
