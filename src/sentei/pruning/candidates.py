"""Candidates: the scores of what a decision ranks, and what is said where they are no ranking."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from sentei.messages import SenteiWarning
from sentei.parts.patterns import protect_
from sentei.parts.site import Site
from sentei.pruning.cut import Ranking
from sentei.pruning.later import Later
from sentei.pruning.shards import pool
from sentei.pruning.sites import UnitState
from sentei.pruning.state import PruningState
from sentei.pruning.widened import widened
from sentei.tensors import Scores, score_dtype


def check_scores(state: PruningState, rankings: Sequence[Ranking], step: int) -> None:
    """Warn where the first decision would be by the order of the weights alone, in any ranking."""
    if not (rankings and nothing_is_pruned(state)):
        return
    seen = [any(map(_says_something, ranking.scores)) for ranking in rankings]
    if not state.ranks.reduce_(torch.tensor(seen, dtype=torch.int64)).all():
        warn_of_zeros(step)


def _says_something(scores: Scores) -> bool:
    return any(bool(says_something(piece).any()) for *_, piece in scores.pieces())


def nothing_is_pruned(state: PruningState) -> bool:
    """Whether no decision has pruned anything yet."""
    return not any(update.pruned for update in state.updates)


def says_something(scores: Tensor) -> Tensor:
    """Which scores rank a weight at all: not those that say that nothing was seen of it."""
    return scores.isfinite() & (scores != 0)


def warn_of_zeros(step: int) -> None:
    """Warn of a decision by scores that are all 0."""
    warnings.warn(
        f"at step {step} every score is 0, so what is pruned says nothing: no gradient was seen. "
        "If the optimizer sets gradients to zero inside its step, use score.iterate='old'; else "
        "see that the loss reaches the weights",
        SenteiWarning,
        stacklevel=2,
    )


def diverged(state: PruningState, step: int, problem: str) -> FloatingPointError:
    """The error of a decision that scores do not allow, with the weight that is why."""
    dense = {site.name: site_state.dense for site, site_state in state.sites.items()}
    bad = [name for name, weight in dense.items() if not torch.isfinite(weight).all()]
    where = f"{bad[0]} is not finite" if bad else "the weights are finite, a score is not"
    return FloatingPointError(
        f"pruning cannot rank the weights at step {step}: {problem} ({where}). Training has "
        "probably diverged: lower the learning rate; the last checkpoint is untouched"
    )


def candidates(state: PruningState, places: Sequence[int]) -> list[Scores]:
    """The scores of the units of places, infinite where the pattern forbids to prune."""
    scores = unit_scores(state, places)
    patterns = [state.groups[place].n_m for place in places]
    return [
        one if n_m is None else _protected(state, one, *n_m)
        for one, n_m in zip(scores, patterns, strict=True)
    ]


def _protected(state: PruningState, scores: Scores, keep: int, of: int) -> Scores:
    def read(start: int, stop: int) -> Tensor:
        first, last = start // of * of, -(-stop // of) * of
        values = scores.read(first, last).clone()
        if values.isnan().any():  # no comparison would notice, and too few would be protected
            if state.ranks.share:  # the cut will notice, in all processes
                return values[start - first : stop - first]
            raise FloatingPointError("a score is NaN")
        protect_(values, keep, of)
        return values[start - first : stop - first]

    return Scores(scores.size, scores.device, read)


def unit_scores(state: PruningState, places: Sequence[int]) -> list[Scores]:
    """The scores of the units of places, readable in pieces."""
    pooled = [place for place in places if state.groups[place].pooled]
    units = [state.units[place] for place in pooled]
    known = dict(zip(pooled, pooled_scores(state, units), strict=True))
    return [
        _stored(known[place]) if place in known else _single_scores(state, place)
        for place in places
    ]


def _stored(scores: Tensor) -> Scores:
    return Scores(scores.numel(), scores.device, lambda start, stop: scores[start:stop])


def _single_scores(state: PruningState, place: int) -> Scores:
    """Of units that are single weights."""
    score = state.recipe.score
    site_state = state.sites[state.groups[place].sites[0]]
    weight = site_state.dense.view(-1)
    memory = {name: tensor.view(-1) for name, tensor in site_state.memory.items()}
    dtype = score_dtype(weight)
    if score.learned:
        learned = score.unit_value(widened(memory, dtype))
        return Scores(weight.numel(), weight.device, lambda a, b: learned[a:b], stands=True)

    def read(start: int, stop: int) -> Tensor:
        known = {name: tensor[start:stop] for name, tensor in memory.items()}
        known |= state.worth(site_state.site, start, stop)
        scratch = state.scratch(weight, stop - start)
        return score.value(widened(known, dtype), weight[start:stop], scratch)

    return Scores(weight.numel(), weight.device, read)


def pooled_scores(state: PruningState, units: Sequence[UnitState]) -> list[Tensor]:
    """The scores of units of several weights, (count,) each."""
    if state.recipe.score.per_unit:
        return [state.recipe.score.unit_value(unit.memory) for unit in units]
    return pool(
        ((unit.group, _site_scores(state, unit.group.sites)) for unit in units), state.ranks
    )


def _site_scores(state: PruningState, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """The scores of the weights of sites."""
    values = dict[Site, Tensor]()
    for site in sites:
        site_state = state.sites[site]
        out = torch.empty_like(site_state.weight, dtype=score_dtype(site_state.weight))
        for piece in state.pieces(site_state):
            part = piece.of(out)
            part.copy_(state.recipe.score.value(piece.memory, piece.dense, part))
        values[site] = out
    return values


def reaching(scores: Sequence[Scores], units: Sequence[UnitState], weights: int) -> int:
    """How many of the lowest units hold ``weights`` weights or more, and no fewer do.

    Units are far fewer than weights, so that they are gathered.
    """
    pieces = [piece.clone() for one in scores for _, _, piece in one.pieces()]
    values = Later(torch.cat([piece.to(pieces[0].device) for piece in pieces])).wait()
    if values.isnan().any():
        raise FloatingPointError("a score is NaN")
    sizes = torch.cat([torch.full((unit.group.count,), unit.group.weights) for unit in units])
    reached = sizes[values.argsort(stable=True)].cumsum(0)
    return int(torch.searchsorted(reached, weights)) + 1 if weights else 0
