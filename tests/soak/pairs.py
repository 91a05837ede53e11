"""Two processes in one folder: one owner at a time, and the folder is of one of them, whole."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

from .fork import start
from .same import difference
from .trial import Trial, faults_of
from .world import PATIENCE, Scenario, World

GROUP = "two processes in one folder"


def trials(world: World, count: int, rng: random.Random) -> Iterator[Trial]:
    """Pairs of each kind, the second after a part of the time of the first."""
    one, other = world.prune("platon"), world.prune("magnitude")
    again = Scenario("resume", one.again, one.again)
    resumed = world.resumed(one)
    pairs = [
        ("prune + prune", one, other),
        ("prune + resume", one, again),
        ("resume + resume", resumed, resumed),
        ("prune + prune, the same", one, one),
    ]
    for scenario in (one, other, resumed):
        world.reference(scenario)
    for number in range(count):
        name, first, second = pairs[number % len(pairs)]
        share = 0.0 if number // len(pairs) % 4 == 3 else rng.random()
        play = _pair(world, first, second, share)
        yield Trial(GROUP, f"{name}, after {share:.3f} of its time", play)
    both = Scenario("compare", *[("compare", *world.comparison, "--out", "OUT")] * 2)
    for _ in range(0 if world.small else count // 12):
        world.reference(both)
        share = rng.random()
        play = _pair(world, both, both, share)
        yield Trial(GROUP, f"compare + compare, after {share:.3f} of its time", play)
    readers = [("report", "OUT"), ("verify", "OUT"), ("shrink", "OUT", "--out", "OUT/../small")]
    for number in range(count // 2):
        words = readers[number % len(readers)]
        share = rng.random()
        play = _pair(world, one, Scenario(words[0], words, words), share)
        yield Trial(GROUP, f"prune + {words[0]}, after {share:.3f} of its time", play)


def _pair(world: World, first: Scenario, second: Scenario, share: float):
    def play(place: Path) -> list[str]:
        out = world.begin(first, place)
        allowed = [out, place / "small"]
        one = start(first.typed(out), place, allowed)
        time.sleep(share * world.seconds[first.name])
        other = start(second.typed(out), place, allowed)
        ended = [child.wait(PATIENCE) for child in (one, other)]
        found = [fault for one in ended for fault in faults_of(one)]
        if found:
            return found
        if all(one.code for one in ended) and (found := world.go_on(first, place, out)[1]):
            return found
        of = {scenario.name for scenario in (first, second)} & set(world.seconds)
        differences = [difference(out, world.runs[name]) for name in sorted(of)]
        return [] if "" in differences else [f"silent difference: {' || '.join(differences)}"]

    return play
