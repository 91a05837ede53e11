"""Kills: at every write of a command, with the file that it opens left torn, and at random."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

from .fork import run, start
from .trap import Trap
from .trial import Trial, faults_of
from .world import PATIENCE, Scenario, World

AT_WRITES = "kill -9 at a write"
TORN = "kill -9 with the file it writes left torn"
POWER = "power cut: what was not synced is lost"
RANDOM = "kill -9 at random moments, several in a run"


def at_writes(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """One trial for each write of some commands, before it; and for each file, torn."""
    for scenario in writing(world):
        world.reference(scenario)
        writes = world.writes[scenario.name]
        for number, write in enumerate(writes):
            hows = [(AT_WRITES, "before")]
            if write.kind == "open":
                hows.append((TORN, "half" if number % 2 else "empty"))
            if write.kind in ("fsync", "rename") or number % 3 == 0:
                hows.append((POWER, "power"))
            for group, how in hows:
                if rng.random() < share:
                    name = f"{scenario.name}, {number} of {len(writes)}: {write.kind} {write.path}"
                    yield Trial(group, f"{name}, {how}", _kill(world, scenario, number, how), 1)


def writing(world: World) -> list[Scenario]:
    """Commands that write: runs from their beginning, one resumed, one after a dense one."""
    whole = world.prune("platon")
    dense = world.prune("auto", "--dense-epochs", "1")
    return [whole, world.resumed(whole), dense]


def _kill(world: World, scenario: Scenario, number: int, how: str):
    def play(place: Path) -> list[str]:
        out = world.begin(scenario, place)
        trap = Trap(out, number, how)
        ended = run(scenario.typed(out), place, [out], trap=trap, seconds=PATIENCE)
        return faults_of(ended, killed=True) or world.judged(scenario, place, out)

    return play


def at_random(world: World, count: int, rng: random.Random) -> Iterator[Trial]:
    """Runs of every method, killed three times each at moments of their time."""
    methods = [
        *("platon", "magnitude", "sensitivity", "movement", "soft_movement", "l0", "mgpp", "leap"),
        *("knowledge_aware", "proximal", "random", "auto"),
    ]
    for number in range(count):
        method = methods[number % len(methods)]
        dense = number % 5 == 4 or method == "knowledge_aware"  # which learns from a dense model
        more = ("--dense-epochs", "1") if dense else ()
        scenario = world.prune(method, *more)
        world.reference(scenario)
        shares = [rng.random() for _ in range(3)]
        name = f"{scenario.name}, at {', '.join(f'{share:.3f}' for share in shares)} of its time"
        yield Trial(RANDOM, name, _kill_often(world, scenario, shares), len(shares))


def _kill_often(world: World, scenario: Scenario, shares: list[float]):
    def play(place: Path) -> list[str]:
        out = world.begin(scenario, place)
        for share in shares:
            words = scenario.typed(out, again=(out / "run.yaml").is_file())
            child = start(words, place, [out])
            time.sleep(share * world.seconds[scenario.name])
            child.signal(9)
            ended = child.wait(PATIENCE)
            if found := faults_of(ended, killed=True):
                return found
        return world.judged(scenario, place, out)

    return play
