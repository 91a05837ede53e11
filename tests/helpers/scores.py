"""Scores by themselves: fed with signals, and stored as they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sentei.parts.scores import Score
from sentei.tensors import Scores


def observe(score: Score, signals: Sequence[float]) -> dict[str, float]:
    """Memory after one step for each signal, of a weight 1 with that gradient."""
    memory = {name: torch.zeros(1) for name in score.memory}
    for step, signal in enumerate(signals, start=1):
        score.observe_(memory, torch.ones(1), torch.tensor([signal]), step, torch.empty(1))
    return {name: tensor.item() for name, tensor in memory.items()}


def stored(values: Tensor) -> Scores:
    """The scores that stand in a tensor."""
    flat = values.view(-1)
    return Scores(flat.numel(), flat.device, lambda start, stop: flat[start:stop])
