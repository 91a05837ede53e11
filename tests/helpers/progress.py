"""Where training is, for parts that are asked by themselves."""

from __future__ import annotations

import pytest

from sentei.parts.progress import Progress


def progress(
    sparsity: float = 0.4,
    *,
    step: int = 50,
    total: int = 100,
    final: float = 0.8,
    reached: float = 0.0,
    ramp: float = 0.5,
) -> Progress:
    """Half of training and of the ramp behind, unless said otherwise."""
    return Progress(
        step=step, total=total, sparsity=sparsity, final=final, reached=reached, ramp=ramp
    )


BEHIND = pytest.mark.parametrize(
    ("reached", "follow", "share"),
    [
        (0.3, True, 1.0),
        (0.39, True, 0.2),
        (0.4, True, 0.0),
        (0.41, True, -0.2),
        (0.9, True, -1.0),
        (0.9, False, 1.0),
    ],
)
"""Of a penalty that follows a schedule at sparsity 0.4: its share of the coefficient."""
