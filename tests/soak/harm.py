"""Files of a stopped or finished run harmed: cut, emptied, removed, flipped, exchanged.

A run that was stopped ends bit-equal, or is refused with the file named. A finished one shows its
report only if its model is there; every other command ends in a result or a sentence.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from .bad import INSPECT
from .fork import run
from .same import difference
from .trial import Trial, faults_of, refused_with
from .world import PATIENCE, Scenario, World, copy

STOPPED = "a file of a stopped run harmed, then --resume"
FINISHED = "a file of a finished run harmed, then --resume"
READERS = "a file of a finished run harmed, then verify, report, evaluate, shrink, inspect, bench"
HARMS = ("cut", "emptied", "removed", "a bit flipped", "64 bytes flipped", "exchanged")


def trials(world: World, share: float, rng: random.Random) -> Iterator[Trial]:
    """Every file by every harm."""
    whole, other = world.prune("platon"), world.reference(world.prune("magnitude"))
    dense = [] if world.small else [world.prune("auto", "--dense-epochs", "1")]
    for scenario in (whole, *dense):
        stopped = world.stopped(scenario, 0.75 if scenario is whole else 0.3)
        for file, harm in _all(stopped, share * (1.0 if scenario is whole else 0.4), rng):
            act = _harm(stopped, file, harm, other, rng.randrange(2**32))
            yield Trial(
                STOPPED, f"{scenario.name}, {file}, {harm}", _resume(world, scenario, act, file)
            )
    finished = world.reference(whole)
    for file, harm in _all(finished, share, rng):
        act = _harm(finished, file, harm, other, rng.randrange(2**32))
        yield Trial(FINISHED, f"{file}, {harm}", _finished(world, whole, act, file))
        for words in _readers(world, file, rng):
            yield Trial(READERS, f"{file}, {harm}, {words[0]}", _read(act, words))


def _all(folder: Path, share: float, rng: random.Random) -> list[tuple[str, str]]:
    files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
    return [(file, harm) for file in files for harm in HARMS if rng.random() < share]


def _harm(source: Path, file: str, harm: str, other: Path, seed: int):
    """What makes a copy of a folder, with one file harmed."""

    def act(out: Path) -> None:
        rng = random.Random(seed)
        copy(source, out)
        target = out / file
        held = target.read_bytes()
        if harm == "cut":
            target.write_bytes(held[: rng.randrange(max(1, len(held)))])
        elif harm == "emptied":
            target.write_bytes(b"")
        elif harm == "removed":
            target.unlink()
        elif harm == "exchanged":
            target.write_bytes(_other(out, file, other))
        elif held:
            changed = bytearray(held)
            bits = [(rng.randrange(len(held)), 1 << rng.randrange(8))]
            if harm != "a bit flipped":
                bits = [(rng.randrange(len(held)), 0xFF) for _ in range(64)]
            for place, bit in bits:
                changed[place] ^= bit
            target.write_bytes(changed)

    return act


def _other(out: Path, file: str, other: Path) -> bytes:
    """The file of the same name in another checkpoint, or in another run."""
    here = out / file
    if here.parent.name.startswith("checkpoint-"):
        for folder in sorted(here.parent.parent.glob("checkpoint-*")):
            if folder != here.parent and (folder / here.name).is_file():
                return (folder / here.name).read_bytes()
    elsewhere = other / file
    return elsewhere.read_bytes() if elsewhere.is_file() else here.read_bytes()[::-1]


def _resume(world: World, scenario: Scenario, act, file: str):
    return _again(scenario, act, file, lambda out: world.differs(scenario, out))


def _again(scenario: Scenario, act, file: str, compare: Callable[[Path], list[str]]):
    """Harm a run, go on with it, and compare where that was not refused."""

    def play(place: Path) -> list[str]:
        out = place / "out"
        act(out)
        ended = run(scenario.typed(out, again=True), place, [out], seconds=PATIENCE)
        found = faults_of(ended)
        if ended.code:
            return found or refused_with(ended, _names(file))
        return found or compare(out)

    return play


def _names(file: str) -> list[str]:
    """What a message may call a file: by its name, or by its checkpoint's."""
    return [part for part in Path(file).parts[-2:] if part not in ("checkpoints", "model", "dense")]


def _finished(world: World, scenario: Scenario, act, file: str):
    """A finished run needs its checkpoints and journal no more; its model and facts it does."""

    def compare(out: Path) -> list[str]:
        needed = file.startswith("model/") or file == "report.json"
        kept = difference(out, world.reference(scenario))
        spare = not needed and kept.startswith(("checkpoints/", "metrics.jsonl", "recipe.yaml"))
        return [] if spare or not kept else [f"silent difference: {kept}"]

    return _again(scenario, act, file, compare)


def _readers(world: World, file: str, rng: random.Random) -> list[tuple[str, ...]]:
    """Commands that read a finished run; of some files the quick ones alone."""
    commands = [
        ("verify", "OUT"),
        ("report", "OUT", "--json"),
        ("evaluate", "--model", "OUT"),
        ("shrink", "OUT", "--out", "OUT/../small"),
        (*INSPECT, "--model", "OUT", "--train", str(world.data["train"])),
        ("bench", "OUT", "--engine", "torch", "--length", "8", "--batch", "1", "--rounds", "1"),
    ]
    if file.startswith("checkpoints/"):
        return []
    return commands if file.startswith("model/") else commands[:3]


def _read(act, words: tuple[str, ...]):
    def play(place: Path) -> list[str]:
        out = place / "out"
        act(out)
        typed = [word.replace("OUT", str(out)) for word in words]
        return faults_of(run(typed, place, [out, place / "small"], seconds=30))

    return play
