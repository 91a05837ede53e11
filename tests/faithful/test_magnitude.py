"""Gradual magnitude pruning beside a plain implementation: one sort a decision."""

from __future__ import annotations

import pytest
import torch

import sentei
from sentei.testing import STEPS, Training

SCOPE = {"include": ["*.weight"]}  # sites of 128, 256 (four times) and 16 weights


def share(sizes: list[int], sparsity: float) -> list[int]:
    """Largest remainder: round all down, then give what is missing to the largest fractions."""
    exact = [size * sparsity for size in sizes]
    missing = round(sum(sizes) * sparsity) - sum(int(x) for x in exact)
    first = sorted(range(len(sizes)), key=lambda i: (int(exact[i]) - exact[i], i))[:missing]
    return [int(x) + (i in first) for i, x in enumerate(exact)]


def lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    pruned = torch.zeros_like(scores, dtype=torch.bool)
    pruned[torch.sort(scores, stable=True).indices[:count]] = True
    return pruned


def cubic(t: int, sparsity: float, start: int, end: int) -> float:
    done = min(max((t - start) / (end - start), 0.0), 1.0)
    return sparsity * (1 - (1 - done) ** 3)


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("budget", ["global", "uniform"])
@pytest.mark.parametrize("sparsity", [0.1, 0.7])
def test_two_implementations_agree_at_every_step(budget, hold, sparsity):
    recipe = sentei.magnitude(sparsity, budget=budget, hold=hold, every=2, scope=SCOPE)
    ours, plain = Training(recipe, dtype=torch.float64), Training(None, dtype=torch.float64)
    start, end = STEPS // 10, STEPS - 4 * STEPS // 10
    weights = {n: p.data for n, p in plain.model.named_parameters() if n.endswith(".weight")}
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    sizes = [w.numel() for w in weights.values()]
    revived = 0
    for t in range(1, STEPS + 1):
        ours.step()
        plain.step()
        if hold:
            for name, w in weights.items():
                w.masked_fill_(~masks[name], 0)
        on_ramp = start < t <= end and t % 2 == 0
        after = t > end and (not hold or t in (end + 1, STEPS))
        if on_ramp or after:
            magnitudes = [w.abs().flatten() for w in weights.values()]
            s = cubic(t, sparsity, start, end)
            if budget == "global":
                pruned = lowest(torch.cat(magnitudes), round(sum(sizes) * s)).split(sizes)
            else:
                counts = share(sizes, s)
                assert sum(counts) == round(sum(sizes) * s)
                pruned = [lowest(m, c) for m, c in zip(magnitudes, counts, strict=True)]
            for (name, w), out in zip(weights.items(), pruned, strict=True):
                out = out.view_as(w)
                revived += int((~out & ~masks[name]).sum())
                masks[name] = ~out
                w.masked_fill_(out, 0)
        found = ours.pruner.masks
        assert all(torch.equal(found[name], masks[name]) for name in weights), t
        assert all(
            torch.equal(a, b)
            for a, b in zip(ours.model.parameters(), plain.model.parameters(), strict=True)
        ), t
    if hold and budget == "global":
        assert revived == 0  # nested masks
    elif not hold and sparsity == 0.1:
        assert revived > 20
    assert ours.finish().pruned == round(sum(sizes) * sparsity)
