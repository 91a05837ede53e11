"""Where training is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What parts are told whose work depends on where training is.

    ``step`` of ``total`` is the optimizer step being taken, from 1. ``sparsity`` is what the
    schedule asks of the decision in force (before the optimizer's step) or being made (after it),
    ``final`` what it asks at the end, ``reached`` what the latest decision pruned. ``ramp`` is the
    place of ``step`` on the schedule's ramp: 0 at its start, 1 at its end, below and above outside.
    """

    step: int
    total: int
    sparsity: float
    final: float
    reached: float
    ramp: float
