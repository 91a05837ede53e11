"""Audit: what was decided against what is there, at the end; and the same zeros in a copy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from sentei.messages import SenteiWarning, counted
from sentei.modules import plain_name
from sentei.parts.penalties import ProximalPenalty
from sentei.pruning.state import PruningState
from sentei.records import PruningReport
from sentei.sharded import is_sharded, local
from sentei.tensors import count_zeros, zero_pruned_

WRITERS = (
    "an optimizer around the one attached to (Lookahead), one that moves weights between its steps "
    "(schedule-free), averaged weights copied back, or weights loaded"
)
"""Who may have written to weights after the last step."""


def check_finite(state: PruningState) -> None:
    """Refuse weights that are no numbers.

    Raises:
        FloatingPointError: Names the first.
    """
    sites = state.selected
    bad = [not torch.isfinite(local(site.parameter)).all() for site in sites]
    anywhere = state.ranks.reduce_(torch.tensor(bad, dtype=torch.int64)).tolist()
    for site, wrong in zip(sites, anywhere, strict=True):
        if wrong:
            raise FloatingPointError(f"{site.name} holds NaN or infinite weights")


def enforce_(state: PruningState, *, stacklevel: int) -> None:
    """Zero what was pruned and is not zero, and tell of every difference from the decision.

    Args:
        state: Of a pruning that has decided for the last time.
        stacklevel: Of the warnings.
    """
    alive = 0
    for site, site_state in state.sites.items():
        weight, keep = site_state.weight, site_state.keep
        nonzero = int(torch.count_nonzero(weight.masked_fill(keep, 0)))
        if nonzero:
            zero_pruned_(weight, keep)
            torch.autograd.graph.increment_version(site.parameter)
        alive += nonzero
    alive = state.ranks.total(alive)
    if alive:
        warnings.warn(
            f"{alive:,} of the {counted(state.pruned, 'weight')} that were pruned had been written "
            f"to after the last step, by {WRITERS}. They are zero again, and what is kept is as it "
            "was written",
            SenteiWarning,
            stacklevel=stacklevel + 1,
        )
    zeros = state.ranks.total(sum(count_zeros(site.parameter) for site in state.sites))
    if zeros > state.pruned:
        shrinks = any(isinstance(p, ProximalPenalty) for p in state.recipe.penalties)
        why = (
            "the penalty has shrunk them to nothing: lower its coefficient or the learning rate"
            if shrinks
            else "they were so from the start, came to it in training, or somebody wrote them"
        )
        warnings.warn(
            f"the model has {zeros:,} zeros where {state.pruned:,} were decided: "
            f"{counted(zeros - state.pruned, 'weight')} of those kept are zero too; {why}. The "
            "report counts them all",
            SenteiWarning,
            stacklevel=stacklevel + 1,
        )


@torch.no_grad()
def mask_copy_(
    state: PruningState, copy: nn.Module | Mapping[str, Tensor], report: PruningReport | None
) -> float:
    """Zero in a copy of the model what is pruned in the model.

    Args:
        state: Of the model's pruning.
        copy: The copy, or its state dict.
        report: Of the pruning, where it has finished and its masks are gone: then the model's own
            zeros are the pattern.

    Returns:
        The fraction of the copy's prunable weights that are zero then.

    Raises:
        ValueError: It is no copy of the model, or the model is not what was reported.
    """
    keeps = _keeps(state, report)
    tensors = copy.named_parameters() if isinstance(copy, nn.Module) else copy.items()
    named = {plain_name(name): tensor for name, tensor in tensors}
    for site in state.selected:
        problem = _unlike(named.get(site.name), site.parameter)
        if problem:
            raise ValueError(
                f"mask_: {site.name} {problem}; give it a copy of the model that is pruned, such "
                "as copy.deepcopy(model) or AveragedModel(model), or the copy's state_dict()"
            )
    zeros = 0
    for site in state.selected:
        tensor = named[site.name]
        rows = local(tensor)
        rows.masked_fill_(~keeps(site.name).to(rows.device), 0)
        torch.autograd.graph.increment_version(tensor)
        zeros += count_zeros(tensor)
    return state.ranks.total(zeros) / state.prunable


def _keeps(state: PruningState, report: PruningReport | None) -> Callable[[str], Tensor]:
    """What is kept of a site, by its name."""
    if report is None:
        masks = {site.name: site_state.keep for site, site_state in state.sites.items()}
        if not masks:
            raise ValueError("mask_: nothing is pruned yet: attach the pruner and train first")
        return masks.__getitem__
    weights = {site.name: local(site.parameter) for site in state.selected}
    here = torch.tensor([count_zeros(weight) for weight in weights.values()])
    counts = dict(zip(weights, state.ranks.reduce_(here).tolist(), strict=True))
    for record in report.sites:
        if (zeros := counts[record.name]) != record.pruned:
            raise ValueError(
                f"mask_: {record.name} has {zeros:,} zeros, and had {record.pruned:,} when the "
                "pruner finished: somebody has written to the model since. Mask a copy before it "
                "is copied into the model"
            )
    return lambda name: weights[name] != 0


def _unlike(tensor: Tensor | None, own: Tensor) -> str | None:
    """Why a tensor is no copy of a prunable weight."""
    if tensor is None:
        return "is not in it"
    if is_sharded(tensor) != is_sharded(own):
        one, other = ("sharded", "whole") if is_sharded(tensor) else ("whole", "sharded")
        return f"is {one} in it, and {other} in the model"
    if tensor.shape != own.shape:
        return f"is {tuple(tensor.shape)} in it, and {tuple(own.shape)} in the model"
    if local(tensor).shape != local(own).shape:
        return "is sharded in another way in it"
    if local(tensor).numel() and local(tensor).data_ptr() == local(own).data_ptr():
        return "is the model's own tensor"
    return None
