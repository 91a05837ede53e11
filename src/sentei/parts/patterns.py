"""The shape of a hole: which weights of a matrix, or of several, are kept or pruned together.

A *unit* is what a decision is about. Unstructured, it is one weight; otherwise a block, a row, an
attention head, ... A pattern lays units over the sites; scores are pooled over a unit, and its
decision is written to all of its weights.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sentei.families import Slice, Structure
from sentei.messages import did_you_mean
from sentei.parts.part import Part
from sentei.parts.site import Site

Reduce = Literal["mean", "sum", "max", "min"]


@dataclass(frozen=True)
class Tiling:
    """What units own of one site: tiles of ``rows`` x ``columns``, row by row of the tiles.

    They cover the entries [``start``, ``stop``) along ``dim`` and all of the other dimension.
    ``gates`` says that the gates of a latent mask lie on these weights. Where they lie on others of
    the same units, those that read what these make, one gate there is the gate on the unit, and
    these stay dense in training's forward passes.
    """

    site: Site
    dim: int
    start: int
    stop: int
    rows: int
    columns: int
    gates: bool = True

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
class UnitGroup:
    """Units of one make in one place: ``count`` of them, each of ``weights`` weights.

    ``pattern`` is the label of theirs: units are ranked with those of the same pattern and size
    only, unless a budget mixes them. ``name`` is the site or the module that they lie in. Where
    ``weights`` is 1, unit i is entry i of the one site; ``n_m`` then says that of every M entries N
    are kept.
    """

    pattern: str
    name: str
    layer: int | None
    count: int
    weights: int
    tilings: tuple[Tiling, ...]
    reduce: Reduce = "mean"
    n_m: tuple[int, int] | None = None

    @property
    def pooled(self) -> bool:
        """Whether a unit is more than a weight."""
        return self.weights > 1

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that they lie in, each once."""
        return tuple(dict.fromkeys(tiling.site for tiling in self.tilings))

    @property
    def gated(self) -> tuple[Site, ...]:
        """Those of them on which a latent mask's gates lie."""
        return tuple(dict.fromkeys(tiling.site for tiling in self.tilings if tiling.gates))

    def pool(self, values: Mapping[Site, Tensor], reduce: Reduce) -> Tensor:
        """Values of the units, (count,), from those of the weights, by site."""
        views = [tiling.view(values[tiling.site]) for tiling in self.tilings]
        if reduce in ("max", "min"):
            pick = torch.amax if reduce == "max" else torch.amin
            return pick(torch.stack([pick(view, (1, 3)).flatten() for view in views]), 0)
        total = _summed(views)
        return total / self.weights if reduce == "mean" else total

    def pool_gates(self, gradients: Mapping[Site, Tensor]) -> Tensor:
        """Gradients of the units' gates, (count,), from those at the weights that they lie on."""
        return _summed(
            [tiling.view(gradients[tiling.site]) for tiling in self.tilings if tiling.gates]
        )


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

    fixed: ClassVar[bool] = False
    """Whether it fixes how much of every matrix is kept."""

    @abstractmethod
    def arrange(
        self, sites: Sequence[Site], structures: Sequence[Structure]
    ) -> tuple[UnitGroup, ...]:
        """The units of ``sites``; a site that none of them covers is not pruned.

        Raises:
            ValueError: A site cannot be divided so, or there is nothing to lay units over.
        """

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

    def arrange(
        self, sites: Sequence[Site], structures: Sequence[Structure]
    ) -> tuple[UnitGroup, ...]:
        """One weight a unit."""
        return tuple(_singles(self.label, site) for site in sites)


class NM(Pattern):
    """``keep`` of every ``of`` consecutive weights along a matrix's inputs, such as 2:4.

    A decision may prune the lowest of every group only, so that each keeps ``keep`` or more on the
    way, and exactly ``keep`` at the end.
    """

    kind: Literal["n_m"] = "n_m"
    pools: ClassVar[bool] = False
    fixed: ClassVar[bool] = True

    keep: int = Field(2, ge=1)
    """N: weights kept in a group."""

    of: int = Field(4, ge=2)
    """M: weights in a group."""

    @property
    def label(self) -> str:
        """N:M."""
        return f"{self.keep}:{self.of}"

    def fits(self, recipe: Any) -> None:
        """Nothing is left for a budget to learn."""
        if recipe.budget.learned:
            raise ValueError(
                f"pattern {self.label} fixes how much of every matrix is kept: there is nothing "
                f"for budget: {recipe.budget.label} to learn"
            )

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

    def arrange(
        self, sites: Sequence[Site], structures: Sequence[Structure]
    ) -> tuple[UnitGroup, ...]:
        """One weight a unit."""
        for site in sites:
            inputs = matrix_shape(self, site)[1]
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
        return tuple(_singles(self.label, site, (self.keep, self.of)) for site in sites)


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

    def arrange(
        self, sites: Sequence[Site], structures: Sequence[Structure]
    ) -> tuple[UnitGroup, ...]:
        """The units of the sites with its roles."""
        chosen = [site for site in sites if not self.roles or site.role in self.roles]
        if not chosen:
            known = ", ".join(sorted({site.role for site in sites})) or "nothing"
            roles = f" with the roles {', '.join(self.roles)}" if self.roles else ""
            raise ValueError(f"pattern {self.label}: no site{roles}; left for it is {known}")
        return self.group(chosen, structures)

    @abstractmethod
    def group(
        self, sites: Sequence[Site], structures: Sequence[Structure]
    ) -> tuple[UnitGroup, ...]:
        """The units of sites, at least one, all of its roles.

        Raises:
            ValueError: A site cannot be divided so.
        """


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

    def group(
        self, sites: Sequence[Site], structures: Sequence[Structure]
    ) -> tuple[UnitGroup, ...]:
        """Blocks over whole sites."""
        for site in sites:
            shape = matrix_shape(self, site)
            outputs, inputs = shape[::-1] if site.transposed else shape
            if outputs % self.rows or inputs % self.columns:
                raise ValueError(
                    f"pattern {self.label}: {site.name} is {outputs} x {inputs}, which such blocks "
                    "do not divide; choose others, or leave it out with scope.exclude"
                )
        return tiled(self, sites, self.rows, self.columns)


class Row(Grouped):
    """Whole rows: all weights into one output."""

    kind: Literal["row"] = "row"

    def group(
        self, sites: Sequence[Site], structures: Sequence[Structure]
    ) -> tuple[UnitGroup, ...]:
        """Rows of whole sites."""
        return tiled(self, sites, 1, None)


class Column(Grouped):
    """Whole columns: all weights from one input."""

    kind: Literal["column"] = "column"

    def group(
        self, sites: Sequence[Site], structures: Sequence[Structure]
    ) -> tuple[UnitGroup, ...]:
        """Columns of whole sites."""
        return tiled(self, sites, None, 1)


class _Coupled(Grouped):
    """Structures over several matrices, all of which are kept or removed together.

    The gate of each lies on the matrix that reads it, the last.
    """

    coupled: ClassVar[bool] = True

    def group(
        self, sites: Sequence[Site], structures: Sequence[Structure]
    ) -> tuple[UnitGroup, ...]:
        """The structures of the model that lie in the sites."""
        by_name = {site.name: site for site in sites}
        groups = []
        for structure in structures:
            names = [piece.parameter for piece in structure.weights]
            inside = [name for name in names if name in by_name]
            if structure.unit != self.label or not inside:
                continue
            if missing := [name for name in names if name not in by_name]:
                raise ValueError(
                    f"pattern {self.label}: {missing[0]} goes with {inside[0]} and is not in the "
                    "scope: include both or neither"
                )
            tilings = tuple(
                self._tiling(by_name[p.parameter], p, structure) for p in structure.weights
            )
            groups.append(
                UnitGroup(
                    pattern=self.label,
                    name=structure.name,
                    layer=structure.layer,
                    count=structure.units,
                    weights=sum(tiling.rows * tiling.columns for tiling in tilings),
                    tilings=tilings,
                    reduce=self.reduce,
                )
            )
        if not groups:
            raise ValueError(
                f"pattern {self.label}: the scope ({sites[0].name} and {len(sites) - 1} more) "
                "holds none"
            )
        return tuple(groups)

    def _tiling(self, site: Site, piece: Slice, structure: Structure) -> Tiling:
        shape = list(matrix_shape(self, site))
        shape[piece.dim] = piece.width
        stop = piece.offset + piece.width * structure.units
        reads = piece is structure.weights[-1]
        return Tiling(site, piece.dim, piece.offset, stop, shape[0], shape[1], reads)


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
    def fixed(self) -> bool:  # type: ignore[override]
        """Whether any of them is."""
        return any(part.fixed for part in self.parts)

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

    def arrange(
        self, sites: Sequence[Site], structures: Sequence[Structure]
    ) -> tuple[UnitGroup, ...]:
        """Those of its parts."""
        left, groups = list(sites), list[UnitGroup]()
        for part in self.parts:
            groups += part.arrange(left, structures)
            covered = {site for group in groups for site in group.sites}
            left = [site for site in left if site not in covered]
        return tuple(groups)


def protect_(scores: Tensor, keep: int, of: int) -> None:
    """Raise the ``keep`` highest of every ``of`` consecutive scores to infinity, in place.

    Of equal ones, the first are raised. ``scores`` is flat, of whole groups.
    """
    groups = scores.view(-1, of)
    earlier = torch.ones(of, of, dtype=torch.bool, device=scores.device).tril(-1)
    here, there = groups.unsqueeze(2), groups.unsqueeze(1)
    ahead = (there > here) | ((there == here) & earlier)
    groups.masked_fill_(ahead.sum(2) < keep, torch.inf)


def _summed(views: Sequence[Tensor]) -> Tensor:
    """Sums over units, (count,), of tensors that are tiled alike."""
    return torch.stack([view.sum((1, 3)).flatten() for view in views]).sum(0)


def _singles(label: str, site: Site, n_m: tuple[int, int] | None = None) -> UnitGroup:
    whole = Tiling(site, 0, 0, site.parameter.shape[0], 1, 1)
    count = site.parameter.numel()
    return UnitGroup(label, site.name, site.layer, count, 1, (whole,), n_m=n_m)


def tiled(
    pattern: Grouped, sites: Sequence[Site], outputs: int | None, inputs: int | None
) -> tuple[UnitGroup, ...]:
    """Units that are tiles of so many outputs x inputs over whole sites; None is all of a site's.

    Raises:
        ValueError: A site is no matrix.
    """
    groups = []
    for site in sites:
        shape = matrix_shape(pattern, site)
        rows, columns = (inputs, outputs) if site.transposed else (outputs, inputs)
        tiling = Tiling(site, 0, 0, shape[0], rows or shape[0], columns or shape[1])
        weights = tiling.rows * tiling.columns
        count = site.parameter.numel() // weights
        groups.append(
            UnitGroup(
                pattern.label, site.name, site.layer, count, weights, (tiling,), pattern.reduce
            )
        )
    return tuple(groups)


def matrix_shape(pattern: Pattern, site: Site) -> tuple[int, int]:
    """The shape of a site that must be a matrix.

    Raises:
        ValueError: It is none.
    """
    shape = tuple(site.parameter.shape)
    if len(shape) != 2:
        raise ValueError(
            f"pattern {pattern.label}: {site.name} is no matrix, its shape is {shape}; leave it "
            "out with scope.exclude"
        )
    return shape[0], shape[1]
