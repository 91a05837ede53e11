"""Weigh: before some decisions, what the inputs seen since the last are worth to a score."""

from __future__ import annotations

import torch

from sentei.messages import listing
from sentei.parts.inputs import part_of_ramp
from sentei.parts.scores import InputScore
from sentei.pruning.state import PruningState


def is_due(state: PruningState, step: int) -> bool:
    """Whether the next decision is made at ``step``, and after its score has seen new inputs."""
    score, schedule, total = state.recipe.score, state.recipe.schedule, state.total_steps
    if not isinstance(score, InputScore) or not schedule.is_update(step, total):
        return False
    if state.decided is None:
        return True
    last, now = (schedule.ramp(at, total) for at in (state.decided, step))
    return part_of_ramp(now, score.decisions) > part_of_ramp(last, score.decisions)


def weigh_(state: PruningState) -> None:
    """Give the score what it makes of the inputs of each layer that has seen some."""
    score = state.recipe.score
    if not isinstance(score, InputScore):
        return
    for observed in state.inputs.values():
        if observed.worth is not None and bool(observed.tokens > 0):
            worth = [score.worth(block) for block in observed.means(score.statistic)]
            observed.worth.copy_(torch.cat(worth))


def check_seen(state: PruningState) -> None:
    """Refuse to rank weights by inputs that were never seen.

    Raises:
        ValueError: Names their layers.
    """
    inputs = state.inputs.items() if isinstance(state.recipe.score, InputScore) else ()
    unseen = [site.name for site, observed in inputs if not bool(observed.tokens > 0)]
    if unseen:
        raise ValueError(
            f"no inputs were seen of {listing(unseen)}, and score {state.recipe.score.label} ranks "
            "weights by them: the layers were not called in the steps before the first decision, "
            "or something uses their weights without calling them; leave them out with "
            f"scope.exclude=({unseen[0]!r},)"
        )
