"""A model under its wrappers: DDP and ``torch.compile`` hold it under names of their own."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

from torch import nn

WRAPPERS = frozenset({"module", "_orig_mod"})
"""The names under which DDP and ``torch.compile`` hold the model."""

_clocks: WeakKeyDictionary[nn.Module, Callable[[], float | None]] = WeakKeyDictionary()

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


class Clock:
    """Says how much of a model's training is done, to whoever asks :func:`progress_of`.

    Args:
        model: The model, or a wrapper of it.
        ask: Gives the fraction of training that is done, in [0, 1]; None where it is not known.
    """

    def __init__(self, model: nn.Module, ask: Callable[[], float | None]) -> None:
        self._model, self._ask = ref(unwrapped(model)), ask
        _clocks[unwrapped(model)] = ask

    def remove(self) -> None:
        """Say nothing more, unless another speaks for the model by now."""
        model = self._model()
        if model is not None and _clocks.get(model) is self._ask:
            del _clocks[model]


def progress_of(model: nn.Module) -> float | None:
    """The fraction of a model's training that is done, where a :class:`Clock` says it."""
    ask = _clocks.get(unwrapped(model))
    return ask() if ask is not None else None
