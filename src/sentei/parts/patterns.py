"""The shape of a hole: which weights of a matrix, or of several, are kept or pruned together.

A *unit* is what a decision is about. Unstructured, it is one weight; otherwise a block, a row, an
attention head, ... A pattern lays units over the sites; scores are pooled over a unit, and its
decision is written to all of its weights.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sentei.families import Structure
from sentei.messages import did_you_mean
from sentei.parts.part import Part
from sentei.parts.site import Site

Reduce = Literal["mean", "sum", "max", "min"]
Sites = Mapping[int, Site]
"""Sites by their place in the list of all."""


@dataclass(frozen=True)
class Tiles:
    """What units own of one site: tiles of ``rows`` x ``columns``, row by row of the tiles.

    They cover the entries [``start``, ``stop``) along ``dim`` and all of the other dimension.
    ``site`` is the site's place in the list of all.
    """

    site: int
    dim: int
    start: int
    stop: int
    rows: int
    columns: int

    def view(self, tensor: Tensor) -> Tensor:
        """``tensor``, of the site's shape, as (tiles down, rows, tiles across, columns)."""
        part = tensor.narrow(self.dim, self.start, self.stop - self.start)
        down, across = part.shape[0] // self.rows, part.shape[1] // self.columns
        tiled: Tensor = part.unflatten(1, (across, self.columns)).unflatten(0, (down, self.rows))
        return tiled

    def write_(self, tensor: Tensor, units: Tensor) -> None:
        """Give every entry of ``tensor`` the value of its unit, of ``units`` (count,)."""
        view = self.view(tensor)
        view.copy_(units.view(view.shape[0], 1, view.shape[2], 1))


@dataclass(frozen=True)
class Units:
    """Units of one make in one place: ``count`` of them, each of ``weights`` weights.

    ``kind`` names the pattern: units are ranked with those of the same kind and size only. ``name``
    is the site or the module they lie in. Where ``weights`` is 1, unit i is entry i of the one
    site; ``n_m`` then says that of every M entries N are kept.
    """

    kind: str
    name: str
    layer: int | None
    count: int
    weights: int
    tiles: tuple[Tiles, ...]
    reduce: Reduce = "mean"
    n_m: tuple[int, int] | None = None

    @property
    def pooled(self) -> bool:
        """Whether a unit is more than a weight."""
        return self.weights > 1

    @property
    def sites(self) -> tuple[int, ...]:
        """The sites that they lie in, each once."""
        return tuple(dict.fromkeys(tiles.site for tiles in self.tiles))

    def moved(self, places: Mapping[int, int]) -> Units:
        """The same units where the list of sites has changed: old place to new."""
        tiles = tuple(replace(tiles, site=places[tiles.site]) for tiles in self.tiles)
        return replace(self, tiles=tiles)

    def pool(self, values: Mapping[int, Tensor], reduce: Reduce) -> Tensor:
        """Values of the units, (count,), from those of the weights, by site."""
        views = [tiles.view(values[tiles.site]) for tiles in self.tiles]
        if reduce in ("max", "min"):
            pick = torch.amax if reduce == "max" else torch.amin
            return pick(torch.stack([pick(view, (1, 3)).flatten() for view in views]), 0)
        total = torch.stack([view.sum((1, 3)).flatten() for view in views]).sum(0)
        return total / self.weights if reduce == "mean" else total


class Pattern(Part):
    """Lays units over sites.

    A string stands for a pattern too: its kind, ``2:4``, a block's ``32x32``, and several joined by
    ``+`` for :class:`Hybrid`.
    """

    axis: ClassVar[str] = "pattern"

    coupled: ClassVar[bool] = False
    """Whether it needs the coupled structures of the model's family."""

    pools: ClassVar[bool] = True
    """Whether its units are more than single weights."""

    @abstractmethod
    def arrange(self, sites: Sites, structures: Sequence[Structure]) -> tuple[Units, ...]:
        """The units of ``sites``; a site that none of them covers is not pruned.

        Raises:
            ValueError: A site cannot be divided so, or there is nothing to lay units over.
        """

    @property
    def label(self) -> str:
        """What people call it."""
        kind: str = type(self).model_fields["kind"].default
        return kind

    def check(self, sparsity: float) -> None:
        """Raise ValueError when the final sparsity is one that the pattern cannot have."""
        return None

    def check_roles(self, known: Collection[str]) -> None:
        """Raise ValueError when it names a role that no site of the scope has."""
        return None

    @classmethod
    def spelled_out(cls, value: Any) -> Any:
        """See the class."""
        if not isinstance(value, str):
            return value
        if "+" in value:
            return {"kind": "hybrid", "parts": [part.strip() for part in value.split("+")]}
        if match := re.fullmatch(r"(\d+):(\d+)", value):
            return {"kind": "n_m", "keep": int(match[1]), "of": int(match[2])}
        if match := re.fullmatch(r"(\d+)x(\d+)", value):
            return {"kind": "block", "rows": int(match[1]), "columns": int(match[2])}
        return value


class Unstructured(Pattern):
    """Every weight by itself."""

    kind: Literal["unstructured"] = "unstructured"
    pools: ClassVar[bool] = False

    def arrange(self, sites: Sites, structures: Sequence[Structure]) -> tuple[Units, ...]:
        """One weight a unit."""
        return tuple(_singles(self.label, number, site) for number, site in sites.items())


class NM(Pattern):
    """``keep`` of every ``of`` consecutive weights along a matrix's inputs, such as 2:4.

    A decision may prune the lowest of every group only, so that each keeps ``keep`` or more on the
    way, and exactly ``keep`` at the end.
    """

    kind: Literal["n_m"] = "n_m"
    pools: ClassVar[bool] = False

    keep: int = Field(2, ge=1)
    """N: weights kept in a group."""

    of: int = Field(4, ge=2)
    """M: weights in a group."""

    @property
    def label(self) -> str:
        """N:M."""
        return f"{self.keep}:{self.of}"

    def check(self, sparsity: float) -> None:
        """N:M is one sparsity only."""
        if self.keep >= self.of:
            raise ValueError(f"pattern {self.label} prunes nothing: keep fewer of a group")
        own = 1 - self.keep / self.of
        if sparsity and abs(sparsity - own) > 1e-9:
            raise ValueError(
                f"pattern {self.label} is a sparsity of {own:.12g} and no other: ask for that, "
                f"not {sparsity:.12g}"
            )

    def arrange(self, sites: Sites, structures: Sequence[Structure]) -> tuple[Units, ...]:
        """One weight a unit."""
        for site in sites.values():
            inputs = _matrix(self, site)[1]
            if site.transposed:
                raise ValueError(
                    f"pattern {self.label}: {site.name} is stored (in, out), and the weights of "
                    "one output do not lie side by side; prune blocks, rows or columns instead"
                )
            if inputs % self.of:
                raise ValueError(
                    f"pattern {self.label}: {site.name} has {inputs} inputs, which {self.of} does "
                    "not divide; leave it out with scope.exclude"
                )
        return tuple(
            _singles(self.label, number, site, (self.keep, self.of))
            for number, site in sites.items()
        )


class Grouped(Pattern):
    """Units of several weights, whose scores are pooled."""

    roles: tuple[str, ...] = ()
    """Roles of the sites it is for, such as query or ffn_in; empty takes all it can."""

    reduce: Reduce = "mean"
    """How the scores of a unit's weights become the unit's."""

    def check_roles(self, known: Collection[str]) -> None:
        """A role that is not there is a slip."""
        for role in self.roles:
            if role not in known:
                hint = did_you_mean(role, known)
                raise ValueError(
                    f"pattern {self.label}: no site of the scope has the role {role!r}; roles "
                    f"there are {', '.join(sorted(known))}{hint}"
                )

    def arrange(self, sites: Sites, structures: Sequence[Structure]) -> tuple[Units, ...]:
        """The units of the sites with its roles."""
        chosen = {n: site for n, site in sites.items() if not self.roles or site.role in self.roles}
        if not chosen:
            known = ", ".join(sorted({site.role for site in sites.values()})) or "nothing"
            wanted = f" with the roles {', '.join(self.roles)}" if self.roles else ""
            raise ValueError(f"pattern {self.label}: no site{wanted}; left for it is {known}")
        return self._arrange(chosen, structures)

    @abstractmethod
    def _arrange(self, sites: Sites, structures: Sequence[Structure]) -> tuple[Units, ...]: ...


class Block(Grouped):
    """Blocks of ``rows`` x ``columns`` weights."""

    kind: Literal["block"] = "block"

    rows: int = Field(32, ge=1)
    """Outputs in a block."""

    columns: int = Field(32, ge=1)
    """Inputs in a block."""

    @property
    def label(self) -> str:
        """Rows x columns."""
        return f"{self.rows}x{self.columns}"

    def _arrange(self, sites: Sites, structures: Sequence[Structure]) -> tuple[Units, ...]:
        for site in sites.values():
            shape = _matrix(self, site)
            outputs, inputs = shape[::-1] if site.transposed else shape
            if outputs % self.rows or inputs % self.columns:
                raise ValueError(
                    f"pattern {self.label}: {site.name} is {outputs} x {inputs}, which such blocks "
                    "do not divide; choose others, or leave it out with scope.exclude"
                )
        return _tiled(self, sites, self.rows, self.columns)


class Row(Grouped):
    """Whole rows: all weights into one output."""

    kind: Literal["row"] = "row"

    def _arrange(self, sites: Sites, structures: Sequence[Structure]) -> tuple[Units, ...]:
        return _tiled(self, sites, 1, None)


class Column(Grouped):
    """Whole columns: all weights from one input."""

    kind: Literal["column"] = "column"

    def _arrange(self, sites: Sites, structures: Sequence[Structure]) -> tuple[Units, ...]:
        return _tiled(self, sites, None, 1)


class _Coupled(Grouped):
    """Structures over several matrices, all of which are kept or removed together."""

    coupled: ClassVar[bool] = True

    def _arrange(self, sites: Sites, structures: Sequence[Structure]) -> tuple[Units, ...]:
        places = {site.name: number for number, site in sites.items()}
        found = []
        for structure in structures:
            names = [piece.parameter for piece in structure.weights]
            inside = [name for name in names if name in places]
            if structure.unit != self.label or not inside:
                continue
            if missing := [name for name in names if name not in places]:
                raise ValueError(
                    f"pattern {self.label}: {missing[0]} goes with {inside[0]} and is not in the "
                    "scope: include both or neither"
                )
            tiles = []
            for piece in structure.weights:
                place = places[piece.parameter]
                shape = list(_matrix(self, sites[place]))
                shape[piece.dim] = piece.width
                stop = piece.offset + piece.width * structure.units
                tiles.append(Tiles(place, piece.dim, piece.offset, stop, *shape))
            weights = sum(t.rows * t.columns for t in tiles)
            found.append(
                Units(
                    kind=self.label,
                    name=structure.name,
                    layer=structure.layer,
                    count=structure.units,
                    weights=weights,
                    tiles=tuple(tiles),
                    reduce=self.reduce,
                )
            )
        if not found:
            one = next(iter(sites.values())).name
            raise ValueError(
                f"pattern {self.label}: the scope ({one} and {len(sites) - 1} more) holds none"
            )
        return tuple(found)


class Head(_Coupled):
    """Attention heads: rows of query, key and value, and columns of the output projection.

    Where query heads share a key and value head, the group is one unit.
    """

    kind: Literal["head"] = "head"


class Neuron(_Coupled):
    """Feed-forward neurons: rows of the input matrices, and columns of the output matrix."""

    kind: Literal["neuron"] = "neuron"


class Hybrid(Pattern):
    """Several patterns: each takes what it can of the sites that those before it left.

    ``neuron+32x32`` prunes neurons of the feed-forward networks and blocks of the attention.
    """

    kind: Literal["hybrid"] = "hybrid"

    parts: tuple[Pattern, ...] = Field(min_length=1)
    """The patterns."""

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        """Whether any of them needs structures."""
        return any(part.coupled for part in self.parts)

    @property
    def pools(self) -> bool:  # type: ignore[override]
        """Whether all of them do."""
        return all(part.pools for part in self.parts)

    @property
    def label(self) -> str:
        """Theirs, joined."""
        return "+".join(part.label for part in self.parts)

    def check(self, sparsity: float) -> None:
        """All of them must allow it."""
        for part in self.parts:
            part.check(sparsity)

    def check_roles(self, known: Collection[str]) -> None:
        """Roles of all sites, also of those that an earlier part takes."""
        for part in self.parts:
            part.check_roles(known)

    def arrange(self, sites: Sites, structures: Sequence[Structure]) -> tuple[Units, ...]:
        """Those of its parts."""
        left, found = dict(sites), list[Units]()
        for part in self.parts:
            taken = part.arrange(left, structures)
            covered = {tiles.site for units in taken for tiles in units.tiles}
            left = {number: site for number, site in left.items() if number not in covered}
            found += taken
        return tuple(found)


def protect_(scores: Tensor, keep: int, of: int) -> None:
    """Raise the ``keep`` highest of every ``of`` consecutive scores to infinity, in place.

    Of equal ones, the first are raised. ``scores`` is flat, of whole groups.
    """
    groups = scores.view(-1, of)
    earlier = torch.ones(of, of, dtype=torch.bool, device=scores.device).tril(-1)
    here, there = groups.unsqueeze(2), groups.unsqueeze(1)
    ahead = (there > here) | ((there == here) & earlier)
    groups.masked_fill_(ahead.sum(2) < keep, torch.inf)


def _singles(kind: str, number: int, site: Site, n_m: tuple[int, int] | None = None) -> Units:
    count = site.parameter.numel()
    whole = Tiles(number, 0, 0, site.parameter.shape[0], 1, 1)
    return Units(kind, site.name, site.layer, count, 1, (whole,), n_m=n_m)


def _tiled(
    pattern: Grouped, sites: Sites, outputs: int | None, inputs: int | None
) -> tuple[Units, ...]:
    """Tiles over whole sites; None is all of a site's."""
    found = []
    for number, site in sites.items():
        shape = _matrix(pattern, site)
        rows, columns = (inputs, outputs) if site.transposed else (outputs, inputs)
        tiles = Tiles(number, 0, 0, shape[0], rows or shape[0], columns or shape[1])
        weights = tiles.rows * tiles.columns
        count = site.parameter.numel() // weights
        kind, reduce = pattern.label, pattern.reduce
        found.append(Units(kind, site.name, site.layer, count, weights, (tiles,), reduce))
    return tuple(found)


def _matrix(pattern: Pattern, site: Site) -> tuple[int, int]:
    shape = tuple(site.parameter.shape)
    if len(shape) != 2:
        raise ValueError(
            f"pattern {pattern.label}: {site.name} is no matrix, its shape is {shape}; leave it "
            "out with scope.exclude"
        )
    return shape[0], shape[1]
