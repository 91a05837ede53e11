"""All groups of trials, in the order of the table, and how many of each."""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Callable, Iterator

from . import disks, harm, kills, models, pairs, signals, states, tables, texts, words
from .trial import Trial
from .world import World

Maker = Callable[[World, float, random.Random], Iterator[Trial]]


def _count(make: Callable[[World, int, random.Random], Iterator[Trial]], number: int) -> Maker:
    """Of trials that are as many as one likes: the share of a number."""
    return lambda world, share, rng: make(world, max(1, round(number * share)), rng)


def _part(make: Maker, part: float) -> Maker:
    """Of trials that are more than is needed."""
    return lambda world, share, rng: make(world, part * share, rng)


MAKERS: dict[str, tuple[tuple[str, ...], Maker]] = {
    "writes": ((kills.AT_WRITES, kills.TORN, kills.POWER), kills.at_writes),
    "moments": ((kills.RANDOM,), _count(kills.at_random, 40)),
    "signals": ((signals.GROUP,), _count(signals.trials, 36)),
    "disks": ((disks.FILES, disks.SMALL), _count(disks.trials, 30)),
    "harm": ((harm.STOPPED, harm.FINISHED, harm.READERS), harm.trials),
    "pairs": ((pairs.GROUP,), _count(pairs.trials, 24)),
    "recipes": ((texts.RECIPES,), texts.recipes),
    "sets": ((words.SETS,), _part(words.sets, 0.7)),
    "options": ((words.OPTIONS,), _part(words.options, 0.8)),
    "paths": ((words.PATHS,), words.paths),
    "data": ((tables.GROUP,), tables.trials),
    "compressed": ((), tables.compressed),
    "models": ((models.GROUP,), models.trials),
    "states": ((states.STATES,), states.trials),
    "plans": ((texts.PLANS,), texts.plans),
    "pages": ((states.PAGES,), states.pages),
}
"""Each maker of trials by its name, with the groups of the table that it fills."""

GROUPS = [group for groups, _ in MAKERS.values() for group in groups]


def all_trials(
    world: World,
    seed: int = 1,
    share: float = 1.0,
    *,
    only: str | None = None,
    makers: str | None = None,
    each: int | None = None,
) -> list[Trial]:
    """Every trial; the same for the same seed and share.

    Args:
        world: What they begin with.
        seed: Of all that is drawn.
        share: The part of them that is wanted.
        only: A pattern of ``GROUP: NAME``.
        makers: Names of makers, separated by commas; None takes all.
        each: How many of a group at most, evenly taken.
    """
    found = list[Trial]()
    for name, (_, make) in MAKERS.items():
        if makers is None or name in makers.split(","):
            found += make(world, share, random.Random(f"{seed} {name}"))
    if each is not None:
        by_group = [[trial for trial in found if trial.group == group] for group in GROUPS]
        found = [trial for group in by_group for trial in group[:: -(-len(group) // each) or 1]]
    if only is None:
        return found
    literal = [trial for trial in found if f"{trial.group}: {trial.name}" == only]
    return literal or [t for t in found if fnmatch.fnmatch(f"{t.group}: {t.name}", only)]
