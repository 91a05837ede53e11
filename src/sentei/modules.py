"""A model under its wrappers: DDP and ``torch.compile`` hold it under names of their own."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, TypeVar

from torch import nn

WRAPPERS = frozenset({"module", "_orig_mod"})
"""The names under which DDP and ``torch.compile`` hold the model."""

Hook = TypeVar("Hook", bound=Callable[..., Any])


def plain_name(name: str, wrappers: Container[str] = WRAPPERS) -> str:
    """The name of a module or parameter without the wrappers' parts."""
    return ".".join(part for part in name.split(".") if part not in wrappers)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module that is called and saved, below every wrapper."""
    children = dict(model.named_children())
    inner = next((children[name] for name in WRAPPERS if name in children), None)
    return unwrapped(inner) if len(children) == 1 and inner is not None else model


def config_of(model: nn.Module) -> Any:
    """The ``config`` of a model, below every wrapper, which may not forward attributes; or None."""
    return getattr(unwrapped(model), "config", None)


def teaching(hook: Hook) -> Hook:
    """Mark a forward hook that puts a teacher's part into the loss, for :func:`taught` to see."""
    hook._sentei_teaches = True  # type: ignore[attr-defined]
    return hook


def taught(model: nn.Module) -> bool:
    """Whether a hook marked by :func:`teaching` is on the model, below every wrapper."""
    hooks = unwrapped(model)._forward_hooks.values()
    return any(getattr(hook, "_sentei_teaches", False) for hook in hooks)


def tell_teachers(model: nn.Module, progress: float) -> None:
    """Tell those whose hooks are marked by :func:`teaching` how much of training is done."""
    for hook in unwrapped(model)._forward_hooks.values():
        if getattr(hook, "_sentei_teaches", False):
            hook.__self__.progress = progress
