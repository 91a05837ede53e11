"""Signals at random moments: a checkpoint is left where training had begun, and the run goes on."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from .fork import Ended, start
from .trial import Trial, faults_of
from .world import PATIENCE, Scenario, World

GROUP = "SIGINT, SIGTERM, SIGHUP at random moments"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def trials(world: World, count: int, rng: random.Random) -> Iterator[Trial]:
    """Every fourth run has dense training first, every fifth gets the signal twice."""
    for number in range(count):
        sent = SIGNALS[number % 3]
        scenario = world.prune("platon")
        if number % 4 == 3:
            scenario = world.prune("auto", "--dense-epochs", "1")
        world.reference(scenario)
        share, twice = rng.random(), number % 5 == 4
        name = f"{scenario.name}, {sent.name}{' twice' if twice else ''} at {share:.3f}"
        yield Trial(GROUP, f"{name} of its time", _signal(world, scenario, sent, share, twice))


def _signal(world: World, scenario: Scenario, sent: signal.Signals, share: float, twice: bool):
    def play(place: Path) -> list[str]:
        out = world.begin(scenario, place)
        child = start(scenario.typed(out), place, [out])
        time.sleep(share * world.seconds[scenario.name])
        training = _trained(out)
        child.signal(sent)
        if twice:
            time.sleep(0.05)
            child.signal(sent)
        ended = child.wait(PATIENCE)
        found = faults_of(ended, killed=twice or not training)
        if training and not twice and ended.code:
            found += _left(ended, out, sent)
        return found or world.judged(scenario, place, out)

    return play


def _trained(out: Path) -> bool:
    """Whether training has taken steps."""
    journals = [out / "metrics.jsonl", out / "dense" / "metrics.jsonl"]
    return any(path.is_file() and path.stat().st_size for path in journals)


def _left(ended: Ended, out: Path, sent: signal.Signals) -> list[str]:
    """How a run ended that a signal stopped: its status, and what it goes on from."""
    if ended.code not in (130, 128 + sent):
        return [f"signal: ended with {ended.code}: {ended.message[-300:]}"]
    said = re.search(r"(\S+) is complete", ended.message)
    if said is None and "stopped" not in ended.message:
        return [f"signal: no place to go on from: {ended.message[-300:]}"]
    if said and not Path(said[1]).exists():
        return [f"signal: {said[1]} is not there"]
    return []
