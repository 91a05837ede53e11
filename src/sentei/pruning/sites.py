"""What is kept beside one weight, of one group of units, and of a piece of a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from sentei.parts.patterns import UnitGroup
from sentei.parts.site import Site
from sentei.sharded import Shard, local


@dataclass
class SiteState:
    """What is kept beside the weight of one site.

    ``keep`` is the mask, True = kept; ``memory`` holds what score and mask remember, ``latent`` the
    dense weight where the mask keeps it aside; all have the weight's shape. ``gated`` says that the
    mask's gates lie on them; a latent mask may have those of their units on another site. Of a
    sharded weight, everything here is of the block that this process holds, ``shard``.
    """

    site: Site
    keep: Tensor
    memory: dict[str, Tensor]
    latent: Tensor | None = None
    gated: bool = True
    shard: Shard | None = None

    def __post_init__(self) -> None:
        self.dtype = self.weight.dtype

    @property
    def weight(self) -> Tensor:
        """What the module holds."""
        return local(self.site.parameter)

    @property
    def dense(self) -> Tensor:
        """The weight that training moves: the latent one, where the mask keeps one."""
        return self.weight if self.latent is None else self.latent

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The memory and the latent weight, by name."""
        return self.memory if self.latent is None else {**self.memory, "latent": self.latent}

    def swap(self) -> None:
        """Exchange what the module holds with the latent weight; without copying either, unless
        it is sharded: the memory of shards is known to others.
        """
        assert self.latent is not None
        parameter = self.site.parameter
        if self.shard is not None:
            sparse = self.weight.clone()
            self.weight.copy_(self.latent)
            self.latent.copy_(sparse)
            return
        parameter.data, self.latent = self.latent, parameter.data


@dataclass
class UnitState:
    """What is kept of a group of units: which of them are kept, and memory with their shape.

    Where units are single weights, the tensors are views of their site's.
    """

    group: UnitGroup
    keep: Tensor
    memory: dict[str, Tensor]


class Piece(NamedTuple):
    """Flat slices of one site, of one size: its dense weight, its mask, its memory, scratch.

    ``gated`` is the site's.
    """

    dense: Tensor
    keep: Tensor
    memory: Mapping[str, Tensor]
    scratch: Tensor
    span: slice
    gated: bool

    def of(self, tensor: Tensor) -> Tensor:
        """The same slice of another tensor of the site."""
        return tensor.view(-1)[self.span]
