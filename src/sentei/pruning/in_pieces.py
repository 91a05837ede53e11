"""Decide where every site is read piece by piece: on CPUs, and where processes share weights out.

Rankings of shards are cut together, so that processes exchange no more often for many matrices than
for one. What is whole is cut one ranking after the other: in one sweep where that is enough, else
it is read for the cut, and then for the masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sentei.parts.budget import Quota
from sentei.pruning.candidates import candidates, check_scores, diverged, reaching
from sentei.pruning.cut import Cut, Ranking, find, keep_rows_, prune_
from sentei.pruning.sharded_cut import NAN, find_sharded_cuts, prune_shards_
from sentei.pruning.shards import spread_
from sentei.pruning.sites import UnitState
from sentei.pruning.state import PruningState
from sentei.pruning.sweep import sweep_
from sentei.sharded import Shard
from sentei.tensors import score_dtype


@dataclass(frozen=True)
class _Made:
    """What came of a quota: the score at the cut, weights pruned, and how many changed sides."""

    threshold: float | None
    pruned: int
    flips: int


def cut(state: PruningState, quotas: Sequence[Quota], step: int) -> tuple[int, int, float | None]:
    """Cut what each quota ranks together and write the masks.

    Args:
        state: Of the pruning.
        quotas: Of a decision.
        step: At which it is made.

    Returns:
        How many weights are pruned, how many changed sides, and the score at the cut, where there
        was one cut.

    Raises:
        FloatingPointError: A score is NaN; names the first weight that is not finite.
    """
    weights, units, rows = dict[int, Quota](), dict[int, Quota](), list[Quota]()
    for number, quota in enumerate(quotas):
        if any(state.groups[place].pooled for place in quota.places):
            units[number] = quota
        elif quota.by_row:
            rows.append(quota)
        else:
            weights[number] = quota
    try:
        made = _cut(state, units, step, pooled=True)
        if state.ranks.share:
            made += _cut(state, weights, step, pooled=False)
        else:
            for number, quota in weights.items():
                made += _cut_whole(state, number, quota, step)
        made += _cut_rows(state, rows)
    except FloatingPointError as error:
        raise diverged(state, step, str(error)) from error
    pruned, flips = sum(one.pruned for one in made), sum(one.flips for one in made)
    return pruned, flips, made[0].threshold if len(made) == 1 and pruned else None


def _cut_whole(state: PruningState, number: int, quota: Quota, step: int) -> list[_Made]:
    """Cut a quota of single weights that nobody else holds: in one sweep, if that is enough."""
    [ranking] = _rankings(state, {number: quota}).values()
    masks = [state.units[place].keep for place in quota.places]
    swept = sweep_(masks, ranking, strict=quota.strict)
    if swept is None:
        return _cut(state, {number: quota}, step, pooled=False)
    if swept.bracket is not None:
        state.brackets[number] = swept.bracket
    if swept.cut.threshold == 0 and state.recipe.score.observes:
        check_scores(state, [ranking], step)
    return [_Made(swept.cut.threshold, swept.cut.below + swept.cut.ties, swept.flips)]


def _cut(
    state: PruningState, quotas: Mapping[int, Quota], step: int, *, pooled: bool
) -> list[_Made]:
    """Cut quotas by their numbers: all of single weights, or all of units of several (``pooled``),
    which every process knows whole.
    """
    shared = state.ranks.share and not pooled
    rankings = _rankings(state, quotas)
    if shared:
        dtype = score_dtype(state.selected[0].parameter)
        found = find_sharded_cuts([*rankings.values()], ranks=state.ranks, dtype=dtype)
    else:
        found = [find(ranking) for ranking in rankings.values()]
    cuts, unsaid = list[Cut](), list[Ranking]()
    for (number, ranking), (cut, bracket) in zip(rankings.items(), found, strict=True):
        if bracket is not None:
            state.brackets[number] = bracket
        if ranking.count and cut.threshold == 0 and state.recipe.score.observes:
            unsaid.append(ranking)
        cuts.append(Cut(cut.threshold, cut.below, 0) if quotas[number].strict else cut)
    check_scores(state, unsaid, step)
    units = [[state.units[place] for place in quota.places] for quota in quotas.values()]
    before = [[unit.keep.clone() for unit in own] for own in units if pooled]
    masks = [[unit.keep for unit in own] for own in units]
    every = [*zip(masks, rankings.values(), cuts, strict=True)]
    if shared:
        shards = [[_block(state, unit) for unit in own] for own in units]
        flips = prune_shards_(every, shards, ranks=state.ranks)
    else:
        flips = [prune_(own, ranking.scores, cut) for own, ranking, cut in every]
    if pooled:
        each = zip(units, before, cuts, strict=True)
        return [_written(state, own, old, cut) for own, old, cut in each]
    return [
        _Made(cut.threshold, cut.below + cut.ties, changed)
        for cut, changed in zip(cuts, flips, strict=True)
    ]


def _block(state: PruningState, unit: UnitState) -> Shard:
    """Where the single weights that are held here lie in their site."""
    shard = state.sites[unit.group.sites[0]].shard
    assert shard is not None
    return shard


def _rankings(state: PruningState, quotas: Mapping[int, Quota]) -> dict[int, Ranking]:
    """What each quota ranks, by its number."""
    places = [place for quota in quotas.values() for place in quota.places]
    known = dict(zip(places, candidates(state, places), strict=True))
    rankings = dict[int, Ranking]()
    for number, quota in quotas.items():
        scores, count = [known[place] for place in quota.places], quota.count
        if quota.of_weights:
            count = reaching(scores, [state.units[place] for place in quota.places], count)
        rankings[number] = Ranking(scores, count, quota.threshold, state.brackets.get(number))
    return rankings


def _written(
    state: PruningState, units: Sequence[UnitState], before: Sequence[Tensor], cut: Cut
) -> _Made:
    """Write decisions on units of several weights to their weights, and count these."""
    for unit in units:
        for tiling in unit.group.tilings:
            site_state = state.sites[tiling.site]
            spread_(site_state.keep, tiling, unit.keep, site_state.shard)
    pruned = sum(int((~unit.keep).sum()) * unit.group.weights for unit in units)
    pairs = zip(units, before, strict=True)
    flips = sum(int((unit.keep != old).sum()) * unit.group.weights for unit, old in pairs)
    return _Made(cut.threshold, pruned, flips)


def _cut_rows(state: PruningState, quotas: Sequence[Quota]) -> list[_Made]:
    """Quotas of one matrix each that are shared out among its rows."""
    if not quotas:
        return []
    numbers = list[Tensor]()
    for quota in quotas:
        [place] = quota.places
        unit = state.units[place]
        site_state = state.sites[unit.group.sites[0]]
        site, outputs = site_state.site, 1 if site_state.site.transposed else 0
        [scores] = candidates(state, quota.places)
        values = scores.read(0, scores.size)
        nan = values.isnan().any()
        matrices = [one.view(site_state.weight.shape) for one in (unit.keep, values)]
        keep, values = (one.T if site.transposed else one for one in matrices)
        before = site_state.shard.starts[outputs] if site_state.shard else 0
        rows = site.parameter.shape[outputs]
        flips = keep_rows_(keep, values, quota.count, before=before, rows=rows)
        numbers.append(torch.stack([flips, nan.long()]))
    summed = state.ranks.reduce_(torch.stack(numbers)).tolist()
    if any(nans for _, nans in summed):
        raise FloatingPointError(NAN)
    pairs = zip(quotas, summed, strict=True)
    return [_Made(None, quota.count, flips) for quota, (flips, _) in pairs]
