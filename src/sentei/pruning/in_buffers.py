"""Decide where sites lie in buffers: all quotas at once, and nothing that the host waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from sentei.parts.budget import Quota
from sentei.parts.patterns import protect_
from sentei.pruning.buffers import Buffer
from sentei.pruning.candidates import (
    diverged,
    nothing_is_pruned,
    pooled_scores,
    reaching,
    says_something,
    unit_scores,
    warn_of_zeros,
)
from sentei.pruning.cut import keep_rows_
from sentei.pruning.later import Later, Outcome
from sentei.pruning.selection import Numbers, Rows, Selection, Wanted
from sentei.pruning.state import PruningState
from sentei.tensors import score_dtype


def cut(state: PruningState, quotas: Sequence[Quota], step: int) -> Callable[[], Outcome]:
    """Cut what each quota ranks together and write the masks; what came of it comes later.

    Only where units of unlike sizes are counted by their weights does the host wait, once, for
    their scores.
    """
    ranked = [quota for quota in quotas if _ranked(state, quota)]
    matrices = [_cut_rows(state, quota) for quota in quotas if not _ranked(state, quota)]
    rows = _rows(state, ranked)
    meaningful = None
    if rows and state.recipe.score.observes and nothing_is_pruned(state):
        meaningful = Later(torch.cat([says_something(one.read()).any(1) for one in rows]))
    selection = Selection(rows, [_wanted(state, quota) for quota in ranked]) if rows else None
    _spread(state, rows)
    return partial(
        _outcome,
        state,
        step,
        quotas,
        selection,
        meaningful,
        Later(torch.stack(matrices)) if matrices else None,
    )


def _outcome(
    state: PruningState,
    step: int,
    quotas: Sequence[Quota],
    selection: Selection | None,
    meaningful: Later | None,
    matrices: Later | None,
) -> Outcome:
    """Wait for the numbers of a decision."""
    pruned, flips, threshold = 0, 0, None
    if matrices is not None:
        flips_, nans = matrices.wait().unbind(1)
        if bool(nans.any()):
            raise diverged(state, step, "a score is NaN")
        pruned += sum(quota.count for quota in quotas if not _ranked(state, quota))
        flips += int(flips_.sum())
    if selection is not None:
        numbers = selection.wait()
        if numbers.nan:
            raise diverged(state, step, "a score is NaN")
        sizes = {place: state.groups[place].weights for place in numbers.pruned}
        pruned += sum(n * sizes[place] for place, n in numbers.pruned.items())
        flips += sum(n * sizes[place] for place, n in numbers.flips.items())
        if len(quotas) == 1 and pruned:
            [quota], [threshold] = quotas, numbers.thresholds
            if quota.threshold is not None and sum(numbers.pruned.values()) < quota.count:
                threshold = quota.threshold
        if meaningful is not None:
            _check_scores(state, step, quotas, numbers, meaningful.wait())
    return Outcome(pruned, flips, threshold)


def _check_scores(
    state: PruningState, step: int, quotas: Sequence[Quota], numbers: Numbers, meaningful: Tensor
) -> None:
    """Warn where the first decision was by the order of the weights alone."""
    says = dict(zip(numbers.pruned, meaningful.tolist(), strict=True))
    ranked = [quota for quota in quotas if _ranked(state, quota)]
    for quota, threshold in zip(ranked, numbers.thresholds, strict=True):
        if quota.count and threshold == 0 and not any(says[place] for place in quota.places):
            warn_of_zeros(step)
            return


def _ranked(state: PruningState, quota: Quota) -> bool:
    """Whether the places of a quota are ranked, and not the rows of one matrix alone."""
    return not quota.by_row or any(state.groups[place].pooled for place in quota.places)


def _wanted(state: PruningState, quota: Quota) -> Wanted:
    count = quota.count
    if quota.of_weights:
        units = [state.units[place] for place in quota.places]
        count = reaching(unit_scores(state, quota.places), units, count)
    return Wanted(count, quota.strict, quota.threshold)


def _rows(state: PruningState, quotas: Sequence[Quota]) -> list[Rows]:
    """What quotas rank: buffers, and units of several weights, those of one count together."""
    number = {place: i for i, quota in enumerate(quotas) for place in quota.places}
    rows = [
        Rows(
            read=partial(_scores, state, buffer),
            keep=buffer.keep,
            places=buffer.places,
            quotas=[number[place] for place in buffer.places],
        )
        for buffer in state.buffers
        if buffer.places and buffer.places[0] in number
    ]
    alike = dict[tuple[int, torch.device], list[int]]()
    for place, unit in enumerate(state.units):
        if unit.group.pooled:
            alike.setdefault((unit.group.count, unit.keep.device), []).append(place)
    for places in alike.values():
        units = [state.units[place] for place in places]
        scores = torch.stack(pooled_scores(state, units))
        keep = torch.stack([unit.keep for unit in units])
        rows.append(
            Rows(partial(_stored, scores), keep, places, [number[place] for place in places])
        )
    return rows


def _stored(scores: Tensor) -> Tensor:
    return scores


def _scores(state: PruningState, buffer: Buffer) -> Tensor:
    """The scores of single weights, (rows, entries), infinite where a pattern forbids to prune."""
    dense, n_m = buffer.dense, state.groups[buffer.places[0]].n_m
    out = torch.empty_like(dense, dtype=score_dtype(dense))
    scores = state.recipe.score.value(state.memory_in(buffer), dense, out)
    return scores if n_m is None else _protected(scores, *n_m)


def _protected(scores: Tensor, keep: int, of: int) -> Tensor:
    """Scores with the best of every few infinite; what is NaN stays so, to be noticed."""
    protected = scores.clone(memory_format=torch.contiguous_format)
    protect_(protected, keep, of)
    return torch.where(scores.isnan(), scores, protected)


def _spread(state: PruningState, rows: Sequence[Rows]) -> None:
    """Write the decisions on units of several weights to their weights."""
    for one in rows:
        for place, keep in zip(one.places, one.keep.unbind(), strict=True):
            unit = state.units[place]
            if unit.group.pooled:
                unit.keep.copy_(keep)
                for tiling in unit.group.tilings:
                    tiling.write_(state.sites[tiling.site].keep, unit.keep)


def _cut_rows(state: PruningState, quota: Quota) -> Tensor:
    """Cut a quota of one matrix that is shared out among its rows; nothing where a score is NaN.

    Return how many masks changed, and whether there is NaN, (2,).
    """
    [place] = quota.places
    unit, group = state.units[place], state.groups[place]
    [site] = group.sites
    scores = unit_scores(state, [place])[0].read(0, group.count)
    nan = scores.isnan().any()
    scores = scores if group.n_m is None else _protected(scores, *group.n_m)
    matrices = [one.view(site.parameter.shape) for one in (unit.keep, scores)]
    keep, values = (one.T if site.transposed else one for one in matrices)
    flips = keep_rows_(keep, values, quota.count)
    unit.keep.logical_or_(nan)
    return torch.stack([flips, nan.long()])
