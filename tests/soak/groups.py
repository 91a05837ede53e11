"""All groups of trials, in the order of the table."""

from __future__ import annotations

import fnmatch
import random

from . import kills
from .trial import Trial
from .world import World

MAKERS = {
    "at writes": (kills.at_writes, 1.0),
}


def all_trials(world: World, seed: int, share: float, only: str | None) -> list[Trial]:
    trials = list(kills.at_writes(world, share, random.Random(seed)))
    trials += kills.at_random(world, max(2, round(60 * share)), random.Random(seed))
    if only:
        trials = [t for t in trials if fnmatch.fnmatch(f"{t.group}: {t.name}", only)]
    return trials

GROUPS = [kills.AT_WRITES, kills.TORN, kills.POWER, kills.RANDOM]
def slice_of(trials):
    return trials[:6]
