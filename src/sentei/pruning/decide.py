"""Decide: schedule, budget, cut, masks; and the record of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sentei.messages import SenteiWarning, counted
from sentei.parts.budget import Quota
from sentei.parts.patterns import protect_
from sentei.parts.progress import Progress
from sentei.pruning.cut import WHOLE, Cut, Cuts, prune_rows_
from sentei.pruning.sharded_cut import sharded_cuts
from sentei.pruning.shards import pool, spread_
from sentei.pruning.state import PruningState, UnitState
from sentei.pruning.weigh import check_seen
from sentei.records import UpdateRecord
from sentei.tensors import Scores, score_dtype

NEAR = 0.005
"""How far from the sparsity asked for a learned one may end without a warning."""

FASTER = (
    "Train longer, raise the penalty's coefficient, or raise the learning rate of scores or ratios "
    "(score.optimizer.lr, budget.optimizer.lr)"
)


def decide(state: PruningState, progress: Progress, step: int) -> None:
    """Choose the weights to keep, and record the decision as made at ``step``.

    Raises:
        ValueError: The score ranks by inputs, and none were seen.
        FloatingPointError: A score is NaN; names the first weight that is not finite.
    """
    if not state.updates:
        check_seen(state)
    budget = state.recipe.budget
    settled = budget.settled(progress)
    if settled and not state.settled and budget.emergent:
        _check_near(progress)
    state.settled = settled
    _check_learned(state, step)
    quotas = _quotas(state, progress)
    before, flips = state.pruned, 0
    threshold = state.updates[-1].threshold if state.updates else None
    if state.scores_changed or quotas != state.quotas:
        thresholds = list[float | None]()
        state.pruned = 0
        for number, quota in enumerate(quotas):
            threshold, pruned, changed = _cut(state, number, quota, step)
            thresholds.append(threshold)
            state.pruned += pruned
            flips += changed
        threshold = thresholds[0] if len(thresholds) == 1 and state.pruned else None
        if settled:
            for unit in state.units:
                state.recipe.mask.settle_(unit.keep, unit.memory)
    state.quotas, state.scores_changed = quotas, False
    either = (before + state.pruned + flips) // 2
    both = (before + state.pruned - flips) // 2
    kept_by_either = state.prunable - both
    state.updates.append(
        UpdateRecord(
            step=step,
            target=progress.sparsity,
            pruned=state.pruned,
            settled=settled,
            flips=flips,
            overlap=(state.prunable - either) / kept_by_either if kept_by_either else 1.0,
            threshold=threshold,
        )
    )


def check_shards(state: PruningState) -> None:
    """Refuse what cannot be done with the rows that a process holds of a weight.

    Raises:
        ValueError: Names the weight, and what would do.
    """
    turned = [site.name for site in state.selected if site.transposed]
    if not (state.ranks.share and turned):
        return
    problem = f"{turned[0]} is stored (in, out), and its shards hold some inputs of every output: "
    if state.recipe.reconstruction:
        raise ValueError(
            f"{problem}reconstruction solves for whole outputs. Set reconstruction to null"
        )
    if any(quota.by_row for quota in _quotas(state, state.progress(state.total_steps))):
        raise ValueError(
            f"{problem}budget {state.recipe.budget.label} ranks the weights into one output. Use "
            "budget: uniform"
        )


def is_due(state: PruningState) -> bool:
    """Whether the last step has not decided at the final sparsity."""
    end = state.progress(state.total_steps)
    settled = state.recipe.budget.settled(end)
    last = state.updates[-1] if state.updates else None
    return last is None or (last.step, last.target, last.settled) != (
        state.step,
        end.final,
        settled,
    )


def decide_last(state: PruningState) -> None:
    """Decide at the final sparsity.

    Raises:
        ValueError: Too few steps were seen for the score to mean anything.
    """
    try:
        state.recipe.score.check(state.step)
    except ValueError as error:
        raise ValueError(
            f"only {counted(state.step, 'optimizer step')} of {state.total_steps} counted, too few "
            f"to decide on ({error}): train longer, and where a loss scaler skips most steps, "
            "lower its scale or the learning rate"
        ) from error
    decide(state, state.progress(state.total_steps), state.step)


def warn_if_far(state: PruningState, *, stacklevel: int) -> None:
    """Warn where training has ended far from a sparsity that is left as it comes."""
    reached, final = state.pruned / state.prunable, state.recipe.schedule.sparsity
    if not state.settled and abs(reached - final) > NEAR:
        warnings.warn(
            f"training ended at sparsity {reached:.4f}, not {final:g}: "
            f"this recipe leaves the sparsity as it comes. {FASTER}; or set budget.settle for "
            "the exact count",
            SenteiWarning,
            stacklevel=stacklevel + 1,
        )


def _quotas(state: PruningState, progress: Progress) -> tuple[Quota, ...]:
    """The budget's quotas, among units of one pattern and size unless it mixes them."""
    budget = state.recipe.budget
    mixes = budget.mixes(progress) and all(group.pooled for group in state.groups)
    alike: dict[tuple[str, int], list[int]] = {}
    for place, group in enumerate(state.groups):
        alike.setdefault(("", 0) if mixes else (group.pattern, group.weights), []).append(place)
    quotas: list[Quota] = []
    for places in alike.values():
        groups = [state.groups[place] for place in places]
        counts = [group.count for group in groups]
        weights = [group.weights for group in groups] if mixes else ()
        memory = {name: tensor[places] for name, tensor in state.budget.items()}
        for quota in budget.split(counts, progress, memory, weights):
            quotas.append(replace(quota, places=tuple(places[i] for i in quota.places)))
    return tuple(quotas)


def _check_learned(state: PruningState, step: int) -> None:
    """Refuse learned ratios that are no numbers: no count comes of them."""
    for name, tensor in state.budget.items():
        if not torch.isfinite(tensor).all():
            raise _diverged(state, step, f"the budget's {name} is NaN or infinite")


def _check_near(progress: Progress) -> None:
    if abs(progress.reached - progress.sparsity) > NEAR:
        warnings.warn(
            f"at step {progress.step} of {progress.total} the learned sparsity had reached "
            f"{progress.reached:.4f}, not {progress.sparsity:g}: the count is fixed at once, by "
            f"score. {FASTER}",
            SenteiWarning,
            stacklevel=2,
        )


def _cut(
    state: PruningState, number: int, quota: Quota, step: int
) -> tuple[float | None, int, int]:
    """Cut what a quota ranks together and write its masks.

    Return the score at the cut, how many weights it prunes, and how many changed sides.
    """
    units = [state.units[place] for place in quota.places]
    if quota.by_row and not any(unit.group.pooled for unit in units):
        return _cut_rows(state, quota, step)
    before = [unit.keep.clone() for unit in units] if quota.of_weights else []
    try:
        scores = [_candidates(state, place) for place in quota.places]
        count = _reaching(scores, units, quota.count) if quota.of_weights else quota.count
        cuts = _cuts(state, units)
        cut = cuts.at(scores, quota.threshold) if quota.threshold is not None else None
        if cut is None or cut.below + cut.ties > count:
            cut, state.brackets[number] = cuts.find(scores, count, state.brackets.get(number))
        if count and cut.threshold == 0 and state.recipe.score.observes:
            _check_scores(state, scores, step)
        if quota.strict:
            cut = Cut(cut.threshold, cut.below, 0)
        flips = cuts.prune_([unit.keep for unit in units], scores, cut)
    except FloatingPointError as error:
        raise _diverged(state, step, str(error)) from error
    for unit in units:
        for tiling in unit.group.tilings if unit.group.pooled else ():
            site_state = state.sites[tiling.site]
            spread_(site_state.keep, tiling, unit.keep, site_state.shard)
    if quota.of_weights:
        pruned = sum(int((~unit.keep).sum()) * unit.group.weights for unit in units)
        pairs = zip(units, before, strict=True)
        flips = sum(int((unit.keep != old).sum()) * unit.group.weights for unit, old in pairs)
        return cut.threshold, pruned, flips
    weights = units[0].group.weights if units else 1
    return cut.threshold, (cut.below + cut.ties) * weights, flips * weights


def _cuts(state: PruningState, units: Sequence[UnitState]) -> Cuts:
    """How to cut units: those of several weights are known whole to every process."""
    if not state.ranks.share or any(unit.group.pooled for unit in units):
        return WHOLE
    return sharded_cuts(state.ranks, score_dtype(state.selected[0].parameter))


def _cut_rows(state: PruningState, quota: Quota, step: int) -> tuple[None, int, int]:
    """The same for a quota of one matrix that is shared out among its rows."""
    [place] = quota.places
    unit = state.units[place]
    site_state = state.sites[unit.group.sites[0]]
    site, shard = site_state.site, site_state.shard
    scores = _candidates(state, place)
    values = scores.read(0, scores.size)
    if state.ranks.anywhere(bool(values.isnan().any())):
        raise _diverged(state, step, "a score is NaN")
    matrices = [one.view(site_state.weight.shape) for one in (unit.keep, values)]
    keep, values = (one.T if site.transposed else one for one in matrices)
    rows = site.parameter.shape[1 if site.transposed else 0]
    flips = prune_rows_(keep, values, quota.count, before=shard.start if shard else 0, rows=rows)
    return None, quota.count, state.ranks.total(flips)


def _check_scores(state: PruningState, scores: Sequence[Scores], step: int) -> None:
    """Warn where the first decision would be by the order of the weights alone."""
    decided = any(update.pruned for update in state.updates)
    pieces = (piece for one in scores for _, _, piece in one.pieces())
    if decided:
        return
    seen = any(bool((piece.isfinite() & (piece != 0)).any()) for piece in pieces)
    if not state.ranks.anywhere(seen):
        warnings.warn(
            f"at step {step} every score is 0, so what is pruned says nothing: no gradient was "
            "seen. If the optimizer sets gradients to zero inside its step, use "
            "score.iterate='old'; else see that the loss reaches the weights",
            SenteiWarning,
            stacklevel=2,
        )


def _diverged(state: PruningState, step: int, problem: str) -> FloatingPointError:
    dense = {site.name: site_state.dense for site, site_state in state.sites.items()}
    bad = [name for name, weight in dense.items() if not torch.isfinite(weight).all()]
    where = f"{bad[0]} is not finite" if bad else "the weights are finite, a score is not"
    return FloatingPointError(
        f"pruning cannot rank the weights at step {step}: {problem} ({where}). Training has "
        "probably diverged: lower the learning rate; the last checkpoint is untouched"
    )


def _candidates(state: PruningState, place: int) -> Scores:
    """The scores of units, infinite where the pattern forbids to prune."""
    scores, n_m = unit_scores(state, place), state.groups[place].n_m
    if n_m is None:
        return scores
    keep, of = n_m

    def read(start: int, stop: int) -> Tensor:
        first, last = start // of * of, -(-stop // of) * of
        values = scores.read(first, last).clone()
        if values.isnan().any():  # no comparison would notice, and too few would be protected
            raise FloatingPointError("a score is NaN")
        protect_(values, keep, of)
        return values[start - first : stop - first]

    return Scores(scores.size, scores.device, read)


def unit_scores(state: PruningState, place: int) -> Scores:
    """The scores of the units of a place, readable in pieces."""
    group, score = state.groups[place], state.recipe.score
    if group.pooled:
        pooled = _pooled_scores(state, state.units[place])
        return Scores(group.count, pooled.device, lambda start, stop: pooled[start:stop])
    site_state = state.sites[group.sites[0]]
    weight = site_state.dense.view(-1)
    memory = {name: tensor.view(-1) for name, tensor in site_state.memory.items()}

    def read(start: int, stop: int) -> Tensor:
        pieces = state.memory_of(site_state.site, memory, start, stop)
        return score.value(pieces, weight[start:stop], state.scratch(weight, stop - start))

    return Scores(weight.numel(), weight.device, read)


def _pooled_scores(state: PruningState, unit: UnitState) -> Tensor:
    score, group = state.recipe.score, unit.group
    if score.per_unit:
        return score.unit_value(unit.memory)
    values = {}
    for site in group.sites:
        site_state = state.sites[site]
        out = torch.empty_like(site_state.weight, dtype=score_dtype(site_state.weight))
        for piece in state.pieces(site_state):
            part = piece.of(out)
            part.copy_(score.value(piece.memory, piece.dense, part))
        values[site] = out
    return pool(group, values, group.reduce, state.ranks)


def _reaching(scores: Sequence[Scores], units: Sequence[UnitState], weights: int) -> int:
    """How many of the lowest units hold ``weights`` weights or more, and no fewer do.

    Units are far fewer than weights, so that they are gathered.
    """
    values = torch.cat([piece.cpu().clone() for one in scores for _, _, piece in one.pieces()])
    if values.isnan().any():
        raise FloatingPointError("a score is NaN")
    sizes = torch.cat([torch.full((unit.group.count,), unit.group.weights) for unit in units])
    reached = sizes[values.argsort(stable=True)].cumsum(0)
    return int(torch.searchsorted(reached, weights)) + 1 if weights else 0
