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
    """Trials at the writes of commands: before one, with a file that it opens torn, by power."""
    for scenario, every, most in writing(world):
        world.reference(scenario)
        writes = world.writes[scenario.name]
        before = [(AT_WRITES, number, "before") for number in range(len(writes))]
        others = [(POWER, number, "power") for number in range(len(writes))]
        others += [
            (TORN, number, "half" if number % 2 else "empty")
            for number, write in enumerate(writes)
            if write.kind == "open"
        ]
        chosen, pool = (before, others) if every else ([], before + others)
        chosen = chosen + rng.sample(pool, min(most, len(pool)))
        for group, number, how in rng.sample(chosen, round(len(chosen) * share)):
            write = writes[number]
            name = f"{scenario.name}, {number} of {len(writes)}: {write.kind} {write.path}, {how}"
            yield Trial(group, name, _kill(world, scenario, number, how), 1)


def writing(world: World) -> list[tuple[Scenario, bool, int]]:
    """Commands that write; whether to kill before every write; how many other kills are enough.

    Runs from their beginning, one resumed, one after a dense one, and what else fills folders.
    """
    whole = world.prune("platon")
    if world.small:
        return [(whole, True, 100), (world.resumed(whole), False, 100)]
    dense = world.prune("auto", "--dense-epochs", "1")
    run = world.reference(whole)
    timed = ("--engine", "torch", "--length", "8", "--batch", "1", "--rounds", "1")
    others = {
        "report": ("report", "OUT"),
        "bench": ("bench", "OUT", *timed),
        "shrink": ("shrink", str(run), "--out", "OUT"),
        "augment": ("augment", *world.task[:4], "--copies", "1", "--out", "OUT/more.jsonl"),
        "compare": ("compare", *world.comparison, "--out", "OUT"),
    }
    more = [
        Scenario(
            name,
            words,
            words,
            given=run if name in ("report", "bench") else None,
            once=name in ("shrink", "augment"),
        )
        for name, words in others.items()
    ]
    return [
        (whole, True, 120),
        (world.resumed(whole), False, 90),
        (dense, False, 90),
        *((scenario, False, 16) for scenario in more),
    ]


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
