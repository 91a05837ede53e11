"""Shards: what is done to whole weights, done by processes that hold some rows of each.

Scores, masks and penalties are elementwise and need nothing of this. What a unit of several weights
needs, and what is drawn by lot, is made in the shape of the whole weight and cut to the rows held
here: one matrix at a time, on each process for itself, so that nothing is gathered and the numbers
are those of one process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from sentei.distributed import Ranks, Shard
from sentei.parts.patterns import Reduce, Tiling, UnitGroup
from sentei.parts.site import Site
from sentei.pruning.sites import SiteState, UnitState


@contextmanager
def whole_memory(
    memory: Mapping[str, Tensor], shard: Shard | None, names: Collection[str] | None = None
) -> Iterator[Mapping[str, Tensor]]:
    """The memory of a site as it is of the whole weight, while it gets values; ``names`` are those
    of them that do, by default all.
    """
    if shard is None:
        yield memory
        return
    whole = {
        name: shard.whole(rows) for name, rows in memory.items() if names is None or name in names
    }
    yield whole
    for name, tensor in whole.items():
        memory[name].copy_(shard.part(tensor))


def spread_(tensor: Tensor, tiling: Tiling, units: Tensor, shard: Shard | None) -> None:
    """Give every entry of ``tensor``, of what is held of a site, the value of its unit, of
    ``units`` (count,).
    """
    whole = shard.whole(tensor) if shard else tensor
    tiling.write_(whole, units)
    if shard:
        tensor.copy_(shard.part(whole))


def spread(units: Iterable[UnitState], site: SiteState, reads: Sequence[str]) -> dict[str, Tensor]:
    """What a gate reads of its unit, by name, for every weight held of a site, flat."""
    spread = dict[str, Tensor]()
    names = [name for name in reads if name not in site.memory]
    for unit in units if names else ():
        for tiling in unit.group.tilings:
            for name in names if tiling.site is site.site else ():
                empty = torch.zeros_like(site.weight, dtype=unit.memory[name].dtype)
                tensor = spread.setdefault(name, empty)
                spread_(tensor, tiling, unit.memory[name], site.shard)
    return {name: tensor.view(-1) for name, tensor in spread.items()}


def pool(
    group: UnitGroup, values: Mapping[Site, Tensor], reduce: Reduce | None, ranks: Ranks
) -> Tensor:
    """Values of units, (count,), from those of the weights held here, by site; those of the units'
    gates, summed, where ``reduce`` is None.

    Where processes share a unit out among them they pool it together, and a sum may differ in its
    last bits from one that was made in one piece.
    """
    if not ranks.share:
        return group.pool_gates(values) if reduce is None else group.pool(values, reduce)
    fill = {"max": -torch.inf, "min": torch.inf}.get(str(reduce), 0.0)
    wholes = dict[Site, Tensor]()
    for site, rows in values.items():
        shard = ranks.shard(site.parameter)
        assert shard is not None
        wholes[site] = shard.whole(rows, fill)
    if reduce is None:
        return ranks.reduce_(group.pool_gates(wholes))
    if reduce == "max" or reduce == "min":
        return ranks.reduce_(group.pool(wholes, reduce), reduce)
    total = ranks.reduce_(group.pool(wholes, "sum"))
    return total / group.weights if reduce == "mean" else total
