"""Whose weights they are: still the model's own, and of one pruner at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import ref

import torch
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from sentei.messages import SenteiWarning
from sentei.modules import plain_name
from sentei.parts.site import Site
from sentei.sharded import hold_shards, is_sharded


class Places:
    """Where a model keeps its prunable weights, to see at any time whether they are there still.

    Args:
        model: Any model, wrapped or not.
        sites: Its prunable weights.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site]) -> None:
        self._model = model
        wanted = {(site.name, id(site.parameter)) for site in sites}
        self._paths: dict[str, list[tuple[nn.Module, str, object]]] = {}
        self.owners: list[tuple[nn.Module, str, Site]] = []
        """The module that holds each site, under which name of its own."""
        named = {site.name: site for site in sites}
        for prefix, owner in model.named_modules(remove_duplicate=False):
            for leaf, parameter in owner._parameters.items():
                name = plain_name(f"{prefix}.{leaf}".lstrip("."))
                if (name, id(parameter)) in wanted:
                    self._paths[name] = [*_descent(model, prefix), (owner, leaf, parameter)]
                    self.owners.append((owner, leaf, named[name]))
        links = {
            (id(at), key): (at, key, held) for p in self._paths.values() for at, key, held in p
        }
        self._modules = [link for link in links.values() if isinstance(link[2], nn.Module)]
        self._parameters = [link for link in links.values() if not isinstance(link[2], nn.Module)]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def check(self) -> None:
        """Refuse a model that holds other tensors than those that are pruned.

        Identities are compared, a few microseconds for a model of hundreds of matrices.

        Raises:
            ValueError: Names the first, and what has become of it.
        """
        for module, key, held in self._modules:
            if module._modules.get(key) is not held:
                self._refuse()
        for module, key, held in self._parameters:
            if module._parameters.get(key) is not held:
                hold_shards(self._model)
                if module._parameters.get(key) is not held:
                    self._refuse()

    @property
    def sharded_since(self) -> bool:
        """Whether the model was sharded after its weights were looked up."""
        return any(
            is_sharded(module._parameters.get(key)) and not is_sharded(held)
            for module, key, held in self._parameters
        )

    def _refuse(self) -> None:
        for name, path in self._paths.items():
            if any(_held(at, key) is not held for at, key, held in path):
                raise ValueError(
                    f"{name} is no longer the model's own tensor: {_fate(path)} after the pruner "
                    "was made. Do that first, then make the optimizer and the pruner"
                )


def _descent(model: nn.Module, path: str) -> list[tuple[nn.Module, str, object]]:
    """The way from a model down to a module in it, link by link."""
    links: list[tuple[nn.Module, str, object]] = []
    for key in path.split(".") if path else ():
        child = model._modules[key]
        assert child is not None
        links.append((model, key, child))
        model = child
    return links


def _held(module: nn.Module, key: str) -> Any:
    return module._parameters.get(key, module._modules.get(key))


def _fate(path: Sequence[tuple[nn.Module, str, object]]) -> str:
    """What has become of a parameter, in words."""
    *above, (owner, leaf, _) = path
    for module, key, held in above:
        if _held(module, key) is not held:
            return f"the module {key!r} that holds it was replaced or wrapped by another"
    now = owner._parameters.get(leaf)
    if leaf in getattr(owner, "parametrizations", ()) or (now is None and hasattr(owner, leaf)):
        return "it was parametrized (weight_norm, parametrize, torch.nn.utils.prune)"
    if now is None:
        return "it was removed"
    if is_sharded(now):
        return "the model was sharded (fully_shard)"
    return (
        "another stands in its place (load_state_dict with assign=True, a new parameter, tied "
        "weights)"
    )


_owners = WeakTensorKeyDictionary()
"""Of every parameter that was ever pruned, a weak reference to who was attached to it last."""


def claim(owner: object, parameters: Iterable[torch.Tensor]) -> list[Any]:
    """Make parameters an owner's; return those who had some of them, and live."""
    before: list[Any] = []
    for parameter in parameters:
        other = _owner(parameter)
        if other is not None and other is not owner and other not in before:
            before.append(other)
        _owners[parameter] = ref(owner)
    return before


def take_over(owner: object, parameters: Iterable[torch.Tensor]) -> None:
    """Be the one pruner of weights: detach others, with a warning where they acted."""
    for other in claim(owner, parameters):
        acted = other.attached and other._optimizer() is not None
        other.detach()
        if acted:
            warnings.warn(
                f"another pruner ({other.recipe.method}, at step {other.step} of "
                f"{other.total_steps}) was attached to these weights and is detached: one acts "
                "on a weight, the last that is attached",
                SenteiWarning,
                stacklevel=3,
            )


def owns(owner: object, parameters: Iterable[torch.Tensor]) -> bool:
    """Whether nobody else has claimed any of them since."""
    return all(_owner(parameter) in (None, owner) for parameter in parameters)


def is_attached(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether a pruner acts on any of them now."""
    owners = map(_owner, parameters)
    return any(owner is not None and owner.attached for owner in owners)


def _owner(parameter: torch.Tensor) -> Any:
    found = _owners.get(parameter)
    return found() if found is not None else None
