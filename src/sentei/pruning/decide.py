"""Decide: schedule, budget, cut, masks; and the record of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from sentei.messages import SenteiWarning, counted
from sentei.parts.budget import Quota
from sentei.parts.progress import Progress
from sentei.parts.scores import InputScore
from sentei.pruning import in_buffers, in_pieces
from sentei.pruning.candidates import diverged
from sentei.pruning.later import Outcome, Pending
from sentei.pruning.state import PruningState
from sentei.pruning.weigh import check_seen
from sentei.pruning.widened import widened
from sentei.records import UpdateRecord
from sentei.sharded import shard_of, splits
from sentei.tensors import score_dtype

NEAR = 0.005
"""How far from the sparsity asked for a learned one may end without a warning."""

FASTER = (
    "Train longer, raise the penalty's coefficient, or raise the learning rate of scores or ratios "
    "(score.optimizer.lr, budget.optimizer.lr)"
)


def decide(state: PruningState, progress: Progress, step: int) -> None:
    """Choose the weights to keep, and record the decision as made at ``step``.

    Where sites lie in buffers the masks are there at once and the numbers of the record later, with
    :func:`conclude`; so is a FloatingPointError.

    Raises:
        ValueError: The score ranks by inputs, and none were seen.
        FloatingPointError: A score is NaN; names the first weight that is not finite.
    """
    conclude(state)
    if not state.updates:
        check_seen(state)
    budget = state.recipe.budget
    settled = budget.settled(progress)
    if settled and not state.settled and budget.emergent:
        _check_near(progress)
    state.settled = settled
    _check_learned(state, step)
    quotas, before, awaited = _quotas(state, progress), state.pruned, False
    last = state.updates[-1].threshold if state.updates else None
    outcome: Callable[[], Outcome] = partial(Outcome, before, 0, last)
    if state.scores_changed or quotas != state.quotas:
        if state.buffers:
            outcome = in_buffers.cut(state, quotas, step)
            counts = [_count(state, quota) for quota in quotas]
            awaited = None in counts
            state.pruned = before if awaited else sum(count or 0 for count in counts)
        else:
            outcome = partial(Outcome, *in_pieces.cut(state, quotas, step))
        if settled:
            _settle(state)
    state.quotas, state.scores_changed = quotas, False
    state.pending = Pending(step, progress.sparsity, settled, before, awaited, outcome)
    if not state.buffers:
        conclude(state)


def conclude(state: PruningState) -> None:
    """Write the record of a decision whose numbers are still to come.

    Raises:
        FloatingPointError: A score was NaN, and nothing was pruned.
    """
    pending, state.pending = state.pending, None
    if pending is None:
        return
    outcome = pending.outcome()
    state.pruned, before, flips = outcome.pruned, pending.before, outcome.flips
    either = (before + state.pruned + flips) // 2
    both = (before + state.pruned - flips) // 2
    kept_by_either = state.prunable - both
    state.updates.append(
        UpdateRecord(
            step=pending.step,
            target=pending.target,
            pruned=state.pruned,
            settled=pending.settled,
            flips=flips,
            overlap=(state.prunable - either) / kept_by_either if kept_by_either else 1.0,
            threshold=outcome.threshold,
        )
    )


def check_shards(state: PruningState) -> None:
    """Refuse what cannot be done with the part that a process holds of a weight.

    Raises:
        ValueError: Names the weight, and what would do.
    """
    recipe = state.recipe
    if turned := [s for s in state.selected if splits(s.parameter, 0 if s.transposed else 1)]:
        stored = " (it is stored (in, out))" if turned[0].transposed else ""
        problem = (
            f"{turned[0].name} is shared out by its inputs{stored}, and processes hold a part of "
            "the weights of every output: "
        )
        others = "or leave such weights out with scope.exclude"
        if recipe.reconstruction:
            raise ValueError(
                f"{problem}reconstruction solves for whole outputs. Set reconstruction to null, "
                f"{others}"
            )
        if isinstance(recipe.score, InputScore) and not turned[0].transposed:
            raise ValueError(
                f"{problem}score {recipe.score.label} looks at all inputs of a layer. Use another "
                f"score, {others}"
            )
        if any(quota.by_row for quota in _quotas(state, state.progress(state.total_steps))):
            raise ValueError(
                f"{problem}budget {recipe.budget.label} ranks the weights into one output. Use "
                f"budget: uniform, {others}"
            )
    _check_groups(state)


def _check_groups(state: PruningState) -> None:
    """Refuse shards that cut the groups of an N:M pattern; all processes do."""
    groups = [group for group in state.groups if group.n_m]
    for group in groups if state.ranks.share else ():
        shard = shard_of(group.sites[0].parameter)
        assert shard is not None and group.n_m is not None
        ends = shard.starts[1], shard.sizes[1]
        if state.ranks.anywhere(any(end % group.n_m[1] for end in ends)):
            raise ValueError(
                f"pattern {group.pattern}: {group.name} is shared out by its inputs in parts that "
                f"{group.n_m[1]} does not divide: share it among fewer processes, or leave it out "
                "with scope.exclude"
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
    conclude(state)


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
            raise diverged(state, step, f"the budget's {name} is NaN or infinite")


def _check_near(progress: Progress) -> None:
    if abs(progress.reached - progress.sparsity) > NEAR:
        warnings.warn(
            f"at step {progress.step} of {progress.total} the learned sparsity had reached "
            f"{progress.reached:.4f}, not {progress.sparsity:g}: the count is fixed at once, by "
            f"score. {FASTER}",
            SenteiWarning,
            stacklevel=2,
        )


def _count(state: PruningState, quota: Quota) -> int | None:
    """How many weights a quota prunes, where that is known beforehand."""
    if quota.threshold is not None or quota.strict or quota.of_weights:
        return None
    return quota.count * (state.groups[quota.places[0]].weights if quota.places else 1)


def _settle(state: PruningState) -> None:
    """Fit the mask's memory to a decision whose count is final."""
    mask = state.recipe.mask
    for buffer in state.buffers:
        if buffer.places:
            dtype = score_dtype(buffer.sites[0].parameter)
            mask.settle_(buffer.keep, widened(buffer.memory, dtype))
    for unit in state.units:
        if unit.group.pooled or not state.buffers:
            dtype = score_dtype(unit.group.sites[0].parameter)
            mask.settle_(unit.keep, widened(unit.memory, dtype))
