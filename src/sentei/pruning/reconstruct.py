"""Reconstruct: between deciding and applying, kept weights take over what pruned ones did."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from sentei.distributed import Ranks
from sentei.messages import SenteiWarning, listing
from sentei.parts.reconstruction import Reconstruction
from sentei.parts.site import Site
from sentei.pruning.inputs import InputState
from sentei.pruning.sites import SiteState
from sentei.pruning.state import PruningState

TOGETHER = 1 << 24
"""Weights that are solved for at once."""


def is_due(state: PruningState, step: int) -> bool:
    """Whether the next decision is made at ``step``, and followed by a reconstruction."""
    schedule, total = state.recipe.schedule, state.total_steps
    part = state.recipe.reconstruction
    if part is None or not schedule.is_update(step, total):
        return False
    decided = state.decided
    before = -1 if decided is None else part.slot(schedule.ramp(decided, total))
    return part.slot(schedule.ramp(step, total)) > before


def wanted(state: PruningState) -> dict[Site, Tensor]:
    """The weights that layers work with before a decision, where those that train are others."""
    return {
        site: one.dense * one.keep for site, one in state.sites.items() if one.latent is not None
    }


def reconstruct_(state: PruningState, wanted: Mapping[Site, Tensor]) -> None:
    """Change the kept weights, after a decision, for layers to do what they did before it."""
    part, unseen = state.recipe.reconstruction, list[str]()
    assert part is not None
    for site, observed in state.inputs.items():
        site_state = state.sites[site]
        if not bool(observed.tokens > 0):
            unseen.append(site.name)
        elif site_state.gated:  # else whole rows are pruned, and no other row can do their work
            _reconstruct(part, site_state, wanted.get(site), observed, state.ranks)
    if unseen:
        warnings.warn(
            f"no inputs were seen of {listing(unseen)}, so their kept weights stay as they are: "
            "the layers were not called in training, or their weights are used without calling "
            "them",
            SenteiWarning,
            stacklevel=2,
        )


def _reconstruct(
    part: Reconstruction,
    state: SiteState,
    wanted: Tensor | None,
    observed: InputState,
    ranks: Ranks,
) -> None:
    """One matrix, row by row and block by block."""
    matrices = [state.dense if wanted is None else wanted, state.dense, state.keep]
    goal, dense, keep = (m.T if state.site.transposed else m for m in matrices)
    most = int(ranks.reduce_(torch.tensor(dense.shape[0]), "max"))
    for (start, stop), gram in zip(part.inputs.blocks(dense.shape[1]), observed.gram, strict=True):
        step = max(TOGETHER // (stop - start), 1)
        for row in range(0, most, step):  # as often in all processes that share it out
            place = slice(row, row + step), slice(start, stop)
            kept = keep[place]
            before, now = goal[place].to(gram.dtype), dense[place].to(gram.dtype)
            solved = part.solve(before, now * kept, kept, gram, ranks.reduce_)
            dense[place] = torch.where(kept, solved, now).to(dense.dtype)
