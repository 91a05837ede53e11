"""Counts and histograms, in cache-sized pieces, and the report that they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sentei import serialization
from sentei.distributed import Ranks
from sentei.pruning.candidates import unit_scores
from sentei.pruning.state import PruningState
from sentei.records import Histogram, PruningReport, SiteRecord, UnitsRecord
from sentei.sharded import is_sharded
from sentei.tensors import Scores, count_zeros, spans

BINS = 60


@torch.no_grad()
def histograms(
    weights: Sequence[Tensor],
    masks: Sequence[Tensor],
    scores: Sequence[Scores],
    kept: Sequence[Tensor] | None = None,
    ranks: Ranks | None = None,
) -> tuple[Histogram, Histogram]:
    """Histograms of weights (their kept and pruned parts) and of scores, on a log10 axis.

    ``masks`` (True = kept) are those of ``weights``, and of ``scores`` unless ``kept`` is given.

    Weights outside 4 standard deviations are counted in the outermost bins, and so are scores
    outside the middle 99.8 %: the picture is of the bulk.
    """
    ranks = ranks or Ranks([])
    count = ranks.total(sum(weight.numel() for weight in weights))
    square = 0.0
    for weight in weights:
        flat = weight.reshape(-1)
        for start, stop in spans(flat.numel(), flat.device):
            # Cast in the sum, without a copy; Apple's GPUs have no float64.
            sum_in = torch.float32 if flat.device.type == "mps" else torch.float64
            square += float(torch.linalg.vector_norm(flat[start:stop], dtype=sum_in)) ** 2
    square = float(ranks.reduce_(torch.tensor(square, dtype=torch.float64)))
    reach = 4 * math.sqrt(square / max(1, count)) or 1.0
    edges = np.linspace(-reach, reach, BINS + 1)
    counts = np.zeros((2, BINS), dtype=np.int64)
    for weight, mask in zip(weights, masks, strict=True):
        flat, keep = weight.reshape(-1), mask.view(-1)
        for start, stop in spans(flat.numel(), flat.device):
            values = flat[start:stop].float().cpu().numpy()
            _add_(counts, edges, values, keep[start:stop].cpu().numpy())
    weight_histogram = _histogram(edges, _summed(counts, ranks))

    edges = _score_edges(scores, ranks)
    counts = np.zeros((2, BINS), dtype=np.int64)
    zeros = 0
    for site, mask in zip(scores, masks if kept is None else kept, strict=True):
        flat = mask.view(-1)
        for start, stop, piece in site.pieces():
            values, chosen = piece.cpu().numpy(), flat[start:stop].cpu().numpy()
            positive = values > 0
            zeros += values.size - int(np.count_nonzero(positive))
            _add_(counts, edges, np.log10(values[positive]), chosen[positive])
    zeros = ranks.total(zeros)
    return weight_histogram, _histogram(edges, _summed(counts, ranks), log10=True, zeros=zeros)


def _summed(counts: np.ndarray, ranks: Ranks) -> np.ndarray:
    summed: np.ndarray = ranks.reduce_(torch.from_numpy(counts)).numpy()
    return summed


def _score_edges(scores: Sequence[Scores], ranks: Ranks) -> np.ndarray:
    sample = []
    for site in scores:
        for _, _, piece in site.pieces():
            values = piece[:: max(1, piece.numel() // 4096)].cpu().numpy()
            sample.append(np.log10(values[values > 0]))
    values = np.concatenate(sample) if sample else np.zeros(0)
    low, high = np.quantile(values, [0.001, 0.999]) if values.size else (math.inf, -math.inf)
    low = float(ranks.reduce_(torch.tensor(low, dtype=torch.float64), "min"))
    high = float(ranks.reduce_(torch.tensor(high, dtype=torch.float64), "max"))
    if low > high:  # no score is positive
        low, high = -1.0, 0.0
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def _add_(counts: np.ndarray, edges: np.ndarray, values: np.ndarray, kept: np.ndarray) -> None:
    values = np.clip(values, edges[0], edges[-1])
    counts[0] += np.histogram(values[kept], edges)[0]
    counts[1] += np.histogram(values[~kept], edges)[0]


def _histogram(
    edges: np.ndarray, counts: np.ndarray, log10: bool = False, zeros: int = 0
) -> Histogram:
    return Histogram(
        edges=tuple(edges.tolist()),
        kept=tuple(counts[0].tolist()),
        pruned=tuple(counts[1].tolist()),
        log10=log10,
        zeros=zeros,
    )


def count_all_zeros(tensors: Sequence[Tensor]) -> list[int]:
    """How many entries of each are exactly zero, of all that processes hold of it."""
    return [Ranks([one] if is_sharded(one) else []).total(count_zeros(one)) for one in tensors]


def summarize(state: PruningState, model: nn.Module) -> PruningReport:
    """The report of a pruning that has come to its end; every number is counted in the weights."""
    ranks = state.ranks
    parameters = list(model.parameters())
    counts = torch.tensor([count_zeros(site.parameter) for site in state.selected])
    zeros = ranks.reduce_(counts).tolist()
    every = unit_scores(state, range(len(state.units)))
    ranked = [*zip(state.units, every, strict=True)]
    # Units of several weights are known to all who share them; one of these counts them.
    mine = [(unit, scores) for unit, scores in ranked if ranks.first or not unit.group.pooled]
    weights, scores = histograms(
        [site_state.weight for site_state in state.sites.values()],
        [site_state.keep for site_state in state.sites.values()],
        [scores for _, scores in mine],
        [unit.keep for unit, _ in mine],
        ranks,
    )
    return PruningReport(
        method=state.recipe.method,
        recipe=serialization.to_dict(state.recipe),
        step=state.step,
        total_steps=state.total_steps,
        target=state.recipe.schedule.sparsity,
        prunable=state.prunable,
        pruned=sum(zeros),
        parameters=sum(parameter.numel() for parameter in parameters),
        zeros=sum(count_all_zeros(parameters)),
        sites=tuple(
            SiteRecord(
                name=site.name,
                layer=site.layer,
                role=site.role,
                shape=tuple(site.parameter.shape),
                weights=site.parameter.numel(),
                pruned=zero,
            )
            for site, zero in zip(state.selected, zeros, strict=True)
        ),
        units=tuple(
            UnitsRecord(
                pattern=unit.group.pattern,
                name=unit.group.name,
                layer=unit.group.layer,
                units=unit.group.count,
                pruned=count_zeros(unit.keep)
                if unit.group.pooled
                else ranks.total(count_zeros(unit.keep)),
            )
            for unit in state.units
            if unit.group.pooled or unit.group.n_m
        ),
        updates=tuple(state.updates),
        weight_histogram=weights,
        score_histogram=scores,
    )
