"""A recipe of chosen parts."""

from __future__ import annotations

from typing import Any

from sentei.parts.schedule import Cubic
from sentei.parts.scores import Magnitude
from sentei.recipe import Recipe


def recipe_of(**parts: Any) -> Recipe:
    """Magnitude on a cubic schedule, unless said otherwise."""
    return Recipe(
        **{"method": "mine", "score": Magnitude(), "schedule": Cubic(sparsity=0.5)} | parts
    )
