"""A model under its wrappers: DDP and ``torch.compile`` call what they wrap by names of their own."""

from __future__ import annotations

from typing import Any

from torch import nn

WRAPPERS = frozenset({"module", "_orig_mod"})
"""The names under which DDP and ``torch.compile`` hold the model."""


def plain_name(name: str) -> str:
    """The name of a module or parameter without the wrappers' parts."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module that is called and saved, below every wrapper."""
    children = dict(model.named_children())
    inner = next((children[name] for name in WRAPPERS if name in children), None)
    return unwrapped(inner) if len(children) == 1 and inner is not None else model


def config_of(model: nn.Module) -> Any:
    """The ``config`` of a model, below every wrapper, which may not forward attributes; or None."""
    return getattr(unwrapped(model), "config", None)
