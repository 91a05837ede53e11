"""Buffers: what is kept beside the weights, laid side by side where a kernel costs its launch.

On a CPU a site is worked through in pieces that stay in the cache. On a GPU what costs is every
launch and every number that the host waits for. There sites of one size share a buffer: each has a
row in one tensor of masks, one of each memory, one of latent weights, and whatever is done to a
piece of a site is done to all rows at once. Weights and gradients are the model's own, so they are
copied in and out, in one launch each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sentei.parts.site import Site
from sentei.recipe import Fitted
from sentei.sharded import is_sharded, local

LIMIT = 1 << 26
"""Entries of a buffer of several sites: a quarter of a GiB for each float32 copy on the way."""

DEVICES = {"cuda"}
"""Types of devices on which sites lie in buffers."""


@dataclass(frozen=True)
class Kind:
    """What sites of one buffer have in common.

    ``memory`` is what score and mask remember, by name, and in which precision; ``pattern`` is that
    of their units, where these are single weights.
    """

    entries: int
    dtype: torch.dtype
    device: torch.device
    memory: tuple[tuple[str, torch.dtype], ...]
    latent: bool
    gated: bool
    pattern: str | None


@dataclass
class Row:
    """What is kept beside one site, all of its shape; the latent weight without values yet."""

    keep: Tensor
    memory: dict[str, Tensor]
    latent: Tensor | None
    gated: bool

    @classmethod
    def alone(cls, weight: Tensor, kind: Kind) -> Row:
        """Tensors of its own."""
        return cls(
            keep=torch.ones_like(weight, dtype=torch.bool),
            memory={name: torch.zeros_like(weight, dtype=dtype) for name, dtype in kind.memory},
            latent=torch.empty_like(weight) if kind.latent else None,
            gated=kind.gated,
        )


@dataclass
class Buffer:
    """Sites of one size and precision, a row each.

    ``keep`` is their masks, True = kept, ``memory`` what score and mask remember, ``latent`` the
    dense weights where the mask keeps them aside; all of them (rows, entries). ``places`` are the
    numbers of their unit groups where units are single weights, else empty.
    """

    sites: list[Site]
    keep: Tensor
    memory: dict[str, Tensor]
    latent: Tensor | None
    gated: bool
    places: list[int]

    def row(self, number: int) -> Row:
        """What belongs to one of the sites: views."""
        shape = self.sites[number].parameter.shape
        return Row(
            keep=self.keep[number].view(shape),
            memory={name: tensor[number].view(shape) for name, tensor in self.memory.items()},
            latent=None if self.latent is None else self.latent[number].view(shape),
            gated=self.gated,
        )

    def gather(self, tensors: Sequence[Tensor]) -> Tensor:
        """A copy of one tensor of each site, (rows, entries)."""
        rows = torch.empty(self.keep.shape, dtype=tensors[0].dtype, device=self.keep.device)
        torch._foreach_copy_(list(rows.unbind()), [tensor.view(-1) for tensor in tensors])
        return rows

    def scatter_(self, rows: Tensor, tensors: Sequence[Tensor]) -> None:
        """Write rows into one tensor of each site."""
        torch._foreach_copy_([tensor.view(-1) for tensor in tensors], list(rows.unbind()))

    @property
    def weights(self) -> list[Tensor]:
        """What the modules hold."""
        return [site.parameter.data for site in self.sites]

    @property
    def dense(self) -> Tensor:
        """The weights that training moves, (rows, entries): the latent ones, or a copy."""
        return self.gather(self.weights) if self.latent is None else self.latent


def lay_out(fitted: Fitted) -> tuple[list[Buffer], dict[Site, Row]]:
    """What is kept beside every prunable weight, in their order: masks True, memory 0.

    Return the buffers too; there is none where some weight is on a device that does not want them.
    """
    groups, sites = fitted.groups, fitted.selection.sites
    places = {group.sites[0]: i for i, group in enumerate(groups) if not group.pooled}
    kinds = {site: _kind(fitted, site, places) for site in sites}
    filled, lists = dict[Kind, list[Site]](), list[tuple[Kind, list[Site]]]()
    if all(_wants_buffers(site.parameter) for site in sites):
        for site, kind in kinds.items():
            if kind not in filled or (len(filled[kind]) + 1) * kind.entries > LIMIT:
                filled[kind] = []
                lists.append((kind, filled[kind]))
            filled[kind].append(site)
    buffers = [_buffer(kind, members, places) for kind, members in lists]
    rows = {site: buffer.row(i) for buffer in buffers for i, site in enumerate(buffer.sites)}
    if not buffers:
        rows = {site: Row.alone(local(site.parameter), kind) for site, kind in kinds.items()}
    return buffers, {site: rows[site] for site in sites}


def _wants_buffers(weight: Tensor) -> bool:
    return weight.device.type in DEVICES and not is_sharded(weight)


def _kind(fitted: Fitted, site: Site, places: Mapping[Site, int]) -> Kind:
    score, mask, weight = fitted.recipe.score, fitted.recipe.mask, site.parameter.data
    shared = (*score.per_unit, *mask.per_unit)
    pooled = any(group.pooled and site in group.sites for group in fitted.groups)
    names = [n for n in (*score.memory, *mask.memory) if not (pooled and n in shared)]
    return Kind(
        entries=weight.numel(),
        dtype=weight.dtype,
        device=weight.device,
        memory=tuple((name, fitted.memory_dtype(name, weight)) for name in names),
        latent=mask.latent,
        gated=not mask.latent or any(site in group.gated for group in fitted.groups),
        pattern=fitted.groups[places[site]].pattern if site in places else None,
    )


def _buffer(kind: Kind, sites: list[Site], places: Mapping[Site, int]) -> Buffer:
    shape, device = (len(sites), kind.entries), kind.device
    return Buffer(
        sites=sites,
        keep=torch.ones(shape, dtype=torch.bool, device=device),
        memory={
            name: torch.zeros(shape, dtype=dtype, device=device) for name, dtype in kind.memory
        },
        latent=torch.empty(shape, dtype=kind.dtype, device=device) if kind.latent else None,
        gated=kind.gated,
        places=[places[site] for site in sites] if kind.pattern is not None else [],
    )
