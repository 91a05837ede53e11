"""Observe: what scores see of weights and gradients, what penalties and latent masks make of them.

Before the optimizer's step gradients are those of what the modules hold; here scores look at them,
learned scores and budgets take their own step, a latent mask turns them into the latent weights',
and penalties join them. After it, scores may look at the weights that it has made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor

from sentei.parts.masks import Latent
from sentei.parts.patterns import UnitGroup
from sentei.parts.penalties import ProximalPenalty, RatioPenalty, ScorePenalty, WeightPenalty
from sentei.parts.progress import Progress
from sentei.parts.site import Site
from sentei.pruning.buffers import Buffer
from sentei.pruning.later import Later, Learning
from sentei.pruning.shards import pool_gates
from sentei.pruning.sites import Piece, SiteState, UnitState
from sentei.pruning.state import PruningState
from sentei.pruning.widened import round_, widened
from sentei.recipe import Recipe
from sentei.sharded import as_held, is_sharded, local
from sentei.tensors import cut_up, score_dtype, zero_pruned_


def reads_gradient(recipe: Recipe) -> bool:
    """Whether :func:`before_step` has anything to do."""
    return (
        recipe.mask.latent
        or (recipe.score.observes and not recipe.score.observes_new)
        or any(isinstance(penalty, WeightPenalty) for penalty in recipe.penalties)
    )


def shrinks(recipe: Recipe) -> bool:
    """Whether :func:`shrink` has anything to do."""
    return any(isinstance(penalty, ProximalPenalty) for penalty in recipe.penalties)


def before_step(state: PruningState, progress: Progress, *, sampled: bool) -> None:
    """Observe; form a latent mask's gradients; train scores and budget; add penalties' gradients.

    ``sampled`` says that the gradients are those of a random sample of the weights.
    """
    learning = state.recipe.budget.learned and not state.settled
    kept = dict[int, Tensor]()
    for buffer in state.buffers:
        if buffer.places:
            sums = _buffer_before_step(state, buffer, progress, sampled)
            kept |= dict(zip(buffer.places, sums.unbind(), strict=True)) if learning else {}
    means = _means_over_shards(state, progress.step, sampled) if state.ranks.share else {}
    gates = dict[int, Tensor]()
    for place, unit in enumerate(state.units):
        if unit.group.pooled or not state.buffers:
            kept[place], gate = _units_before_step(state, unit, progress, sampled, means)
            gates |= {} if gate is None else {place: gate}
    state.ranks.reduce_all_([*gates.values()])
    for place, gate in gates.items():
        unit, mean = state.units[place], gate.abs().mean() if _has_relative(state.recipe) else None
        _train_scores(state, unit.group, unit.memory, gate, mean, progress)
    if learning:
        _learn_later(state, [kept[place] for place in range(len(state.groups))], progress)


def _learn_later(state: PruningState, kept: Sequence[Tensor], progress: Progress) -> None:
    """Note what a budget learns from: sums of the mask's gradient over what is kept, by place."""
    budget = state.recipe.budget
    ratios, pull = budget.ratios(state.budget), torch.zeros(len(kept), dtype=torch.float64)
    weights = [group.count * group.weights for group in state.groups]
    sizes = torch.tensor(weights, dtype=torch.float64)
    for penalty in state.recipe.penalties:
        if isinstance(penalty, RatioPenalty):
            if ratios is None:
                raise ValueError(
                    f"penalty {penalty.label} is on kept ratios, and budget {budget.label} "
                    "learns none: use budget: learned_ratio"
                )
            pull += penalty.gradient(ratios, sizes, progress)
    here = [one.to(kept[0].device, non_blocking=True) for one in kept]
    state.learning = Learning(Later(torch.stack(here)), pull, progress)


def learn(state: PruningState) -> None:
    """Let the budget learn from the step that has just been made."""
    learning, state.learning = state.learning, None
    if learning is not None:
        sums = state.ranks.reduce_(learning.mask.wait().double())
        state.recipe.budget.learn_(state.budget, sums, learning.ratio, learning.progress)


def _buffer_before_step(
    state: PruningState, buffer: Buffer, progress: Progress, sampled: bool
) -> Tensor:
    """What :func:`_units_before_step` does, for all sites of a buffer whose units are weights.

    Return the sums of the mask's gradient, (rows,).
    """
    recipe, group = state.recipe, state.groups[buffer.places[0]]
    on_weights = [p for p in recipe.penalties if isinstance(p, WeightPenalty)]
    gradients = [gradient_of(site, progress.step) for site in buffer.sites]
    gradient, dense = buffer.gather(gradients), buffer.dense
    scratch = torch.empty_like(dense, dtype=score_dtype(dense))
    memory = widened(buffer.memory, scratch.dtype)
    piece = Piece(dense, buffer.keep, memory, scratch, slice(None), buffer.gated)
    kept = _form_gradients(state, piece, gradient, progress.step, sampled)
    if recipe.score.learned:
        mean = None
        if _has_relative(recipe):
            mean = _sum_of_sizes(scratch).unsqueeze(1) / scratch.shape[1]
        _train_scores(state, group, memory, scratch, mean, progress)
    for prior in on_weights:
        prior.add_(gradient, dense, progress, scratch)
    if recipe.mask.latent or on_weights:
        buffer.scatter_(gradient, gradients)
    return kept


def _units_before_step(
    state: PruningState,
    unit: UnitState,
    progress: Progress,
    sampled: bool,
    means: Mapping[Site, Tensor],
) -> tuple[Tensor, Tensor | None]:
    """The sum of the mask's gradient over what is kept, if a budget learns from it; and what is
    held here of the gradients of units' scores, if they are learned by units of several weights.

    ``means`` are the mean |dL/dS| of sites, where they are known already.
    """
    recipe, group = state.recipe, unit.group
    pooled = group.pooled and recipe.score.learned
    gradients, kept = dict[Site, Tensor](), list[Tensor]()
    for site in group.sites:
        site_state, room = state.sites[site], None
        if pooled and site_state.gated:
            dtype = score_dtype(site_state.weight)
            room = gradients[site] = torch.empty_like(site_state.weight, dtype=dtype)
        elif not pooled and _has_relative(recipe) and site not in means:
            room = state.scratch(site_state.weight, site_state.weight.numel())
        kept += _site_before_step(state, unit, site_state, room, progress, sampled, means.get(site))
    gates = pool_gates(group, gradients) if pooled else None
    some = state.sites[group.sites[0]].weight
    nothing = torch.zeros((), dtype=score_dtype(some), device=some.device)
    return torch.stack(kept).sum() if kept else nothing, gates


def _site_before_step(
    state: PruningState,
    unit: UnitState,
    site_state: SiteState,
    room: Tensor | None,
    progress: Progress,
    sampled: bool,
    mean: Tensor | None,
) -> list[Tensor]:
    """The same for one of the sites; return a sum for each piece.

    Where something must know the gradients of all scores before one of them learns, ``room`` is for
    those of the site. ``mean`` is the mean |dL/dS|, where it is known already.
    """
    recipe, whole = state.recipe, gradient_of(site_state.site, progress.step)
    on_weights = [p for p in recipe.penalties if isinstance(p, WeightPenalty)]
    learns = recipe.score.learned and not unit.group.pooled
    kept, sizes = list[Tensor](), list[Tensor]()

    def add_penalties(piece: Piece, gradient: Tensor) -> None:
        for prior in on_weights:
            prior.add_(gradient, piece.dense, progress, piece.scratch)

    for piece, gradient in zip(state.pieces(site_state, room), cut_up(whole), strict=True):
        kept.append(_form_gradients(state, piece, gradient, progress.step, sampled))
        if room is None:
            if learns:  # last: gates are those of the forward pass
                _train_scores(state, unit.group, piece.memory, piece.scratch, mean, progress)
            add_penalties(piece, gradient)
        elif learns:
            sizes.append(_sum_of_sizes(piece.scratch))
    if sizes:
        mean = torch.stack(sizes).sum() / whole.numel()
        for piece in state.pieces(site_state, room):
            _train_scores(state, unit.group, piece.memory, piece.scratch, mean, progress)
    if room is not None and on_weights:
        for piece, gradient in zip(state.pieces(site_state), cut_up(whole), strict=True):
            add_penalties(piece, gradient)
    return kept


def _form_gradients(
    state: PruningState, piece: Piece, gradient: Tensor, step: int, sampled: bool
) -> Tensor:
    """Turn ``gradient`` into the latent weights' and leave the scores' in the scratch.

    Return the sum of the mask's gradient over what is kept, if a budget learns from it; that of
    each row, where there are several.
    """
    score, mask, scratch = state.recipe.score, state.recipe.mask, piece.scratch
    if score.observes and not score.observes_new:
        score.observe_(piece.memory, piece.dense, gradient, step, scratch)
        round_(piece.memory)
    if isinstance(mask, Latent) and not piece.gated:
        if not sampled:  # a term that reads a pruned unit past its gate, as a teacher's
            zero_pruned_(gradient, piece.keep)
    elif isinstance(mask, Latent):
        keep, memory = piece.keep, piece.memory
        if score.learned:
            mask.gradients_(scratch, gradient, piece.dense, keep, memory, sampled)
        else:
            mask.weight_gradient_(gradient, keep, memory, sampled)
        if state.recipe.budget.learned and not state.settled:
            both = gradient.to(scratch.dtype), piece.dense.to(scratch.dtype)
            return torch.dot(*both) if gradient.ndim == 1 else torch.mul(*both).sum(1)
    return torch.zeros((), dtype=scratch.dtype, device=scratch.device).expand(gradient.shape[:-1])


def _sum_of_sizes(gradient: Tensor) -> Tensor:
    """The sum of |gradient|, of each row where there are several; half the time of the 1-norm."""
    return gradient.abs().sum(-1)


def _has_relative(recipe: Recipe) -> bool:
    """Whether a penalty is measured in mean gradients of scores."""
    return any(isinstance(p, ScorePenalty) and p.relative for p in recipe.penalties)


def _means_over_shards(state: PruningState, step: int, sampled: bool) -> dict[Site, Tensor]:
    """The mean |dL/dS| of every site whose units are single weights, where a penalty wants it:
    summed over the processes all at once.
    """
    units = state.units if _has_relative(state.recipe) else []
    sites = [unit.group.sites[0] for unit in units if not unit.group.pooled]
    if not sites:
        return {}
    sums = [
        _score_gradients(state, state.sites[site], gradient_of(site, step), sampled)
        for site in sites
    ]
    totals = state.ranks.reduce_(torch.stack(sums)).unbind()
    return {s: total / s.parameter.numel() for s, total in zip(sites, totals, strict=True)}


def _score_gradients(
    state: PruningState, site_state: SiteState, gradient: Tensor, sampled: bool
) -> Tensor:
    """The sum of |dL/dS| over what is held of a site whose units are single weights."""
    mask, parts = state.recipe.mask, []
    assert isinstance(mask, Latent)
    for piece, part in zip(state.pieces(site_state), cut_up(gradient), strict=True):
        scratch = piece.scratch
        mask.score_gradient_(scratch, part, piece.dense, piece.memory, sampled)
        parts.append(_sum_of_sizes(scratch))
    zero = torch.zeros((), dtype=score_dtype(gradient), device=gradient.device)
    return torch.stack(parts).sum() if parts else zero


def _train_scores(
    state: PruningState,
    group: UnitGroup,
    memory: Mapping[str, Tensor],
    gradient: Tensor,
    mean: Tensor | None,
    progress: Progress,
) -> None:
    """Add penalties to the gradient of learned scores, and take their step.

    ``mean`` is the mean |gradient| of the place, where a penalty is relative to it; that of each
    row, (rows, 1), where there are several places like ``group``.
    """
    score = state.recipe.score
    for penalty in state.recipe.penalties:
        if isinstance(penalty, ScorePenalty) and penalty.covers(group.pattern):
            share: float | Tensor
            if penalty.relative:
                assert mean is not None
                share = mean
            else:
                places = sum(penalty.covers(other.pattern) for other in state.groups)
                share = 1 / (places * group.count)
            penalty.add_(gradient, score.unit_value(memory), share, progress)
    score.learn_(memory, gradient, progress)


def after_step(state: PruningState, step: int) -> None:
    """Let the score see the weights that the step has made."""
    score = state.recipe.score
    for buffer in state.buffers:
        gradient = buffer.gather([gradient_of(site, step) for site in buffer.sites])
        dense = buffer.dense
        scratch = torch.empty_like(dense, dtype=score_dtype(dense))
        memory = widened(buffer.memory, scratch.dtype)
        score.observe_(memory, dense, gradient, step, scratch)
        round_(memory)
    for site, site_state in () if state.buffers else state.sites.items():
        gradients = cut_up(gradient_of(site, step))
        for piece, gradient in zip(state.pieces(site_state), gradients, strict=True):
            score.observe_(piece.memory, piece.dense, gradient, step, piece.scratch)
            round_(piece.memory)


def shrink(state: PruningState, lr: Mapping[int, float], progress: Progress) -> None:
    """Apply proximal penalties; ``lr`` is the learning rate of every parameter, by its id."""
    proximal = [p for p in state.recipe.penalties if isinstance(p, ProximalPenalty)]
    for buffer in state.buffers:
        dense, rates = buffer.dense, [lr[id(site.parameter)] for site in buffer.sites]
        scratch = torch.empty_like(dense, dtype=score_dtype(dense))
        start = 0
        for rate, alike in groupby(rates):
            rows = slice(start, start := start + len(list(alike)))
            for penalty in proximal:
                penalty.shrink_(dense[rows], rate, progress, scratch[rows])
        buffer.scatter_(dense, buffer.weights)
    for site, site_state in () if state.buffers else state.sites.items():
        for piece in state.pieces(site_state):
            for penalty in proximal:
                penalty.shrink_(piece.dense, lr[id(site.parameter)], progress, piece.scratch)


def gradient_of(site: Site, step: int) -> Tensor:
    """The gradient of a site: contiguous, and the parameter's own, to be written to; of a sharded
    one what is held here.

    Raises:
        ValueError: There is none.
    """
    gradient = site.parameter.grad
    if gradient is None:
        raise ValueError(
            f"{site.name} has no gradient at step {step}, and this recipe needs one: exclude "
            "it from the scope if the loss does not reach it; with iterate='new', zero "
            "gradients after the optimizer's step, not inside it"
        )
    held = as_held(gradient, site.parameter)
    if held is not gradient:
        gradient = site.parameter.grad = held
    return local(gradient) if is_sharded(gradient) else gradient
