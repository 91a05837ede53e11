"""Full disks: no file may grow beyond a size, or the folder is on a small disk; then there is room.

What cannot be written is said in a sentence, and with room the run goes on to the same end.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from .fork import run
from .trial import Trial, faults_of
from .world import PATIENCE, Scenario, World

FILES = "full disk: no file beyond a size"
SMALL = "full disk: a small file system"


def trials(world: World, count: int, rng: random.Random) -> Iterator[Trial]:
    """Sizes evenly spread by their logarithm, for runs from the beginning and resumed ones."""
    whole = world.prune("platon")
    scenarios = [whole, world.resumed(whole)]
    if not world.small:
        scenarios.append(world.prune("auto", "--dense-epochs", "1"))
    for number in range(count):
        scenario = scenarios[number % len(scenarios)]
        world.reference(scenario)
        size = round(20 * 10_000 ** ((number + rng.random()) / count))
        yield Trial(FILES, f"{scenario.name}, {size} bytes", _limit(world, scenario, size))
    if not can_mount():
        return
    for number in range(count // 2):
        scenario = scenarios[number % len(scenarios)]
        size = round(40 + 1100 * (number + rng.random()) / (count // 2))
        yield Trial(SMALL, f"{scenario.name}, {size} KiB", _disk(world, scenario, size))


def _limit(world: World, scenario: Scenario, size: int):
    def play(place: Path) -> list[str]:
        out = world.begin(scenario, place)
        ended = run(scenario.typed(out), place, [out], file_size=size, seconds=PATIENCE)
        return faults_of(ended) or world.judged(scenario, place, out)

    return play


def _disk(world: World, scenario: Scenario, size: int):
    def play(place: Path) -> list[str]:
        disk = place / "disk"
        with _mounted(disk, size) as room:
            # a run that goes on has its folder there already, which must fit
            kept = sum(f.stat().st_size for f in (scenario.given or disk).rglob("*")) // 1024
            room(size + 2 * kept)
            out = world.begin(scenario, disk)
            ended = run(scenario.typed(out), place, [out], seconds=PATIENCE)
            found = faults_of(ended)
            room(100_000)
            return found or world.judged(scenario, place, out)

    return play


class _mounted:
    """A file system of so many KiB in memory; gives what changes its size."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def __enter__(self):
        self.folder.mkdir(parents=True)
        _mount("-t", "tmpfs", "-o", f"size={self.size}k", "none", str(self.folder))
        return lambda size: _mount("-o", f"remount,size={size}k", str(self.folder))

    def __exit__(self, *error: object) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@cache
def can_mount() -> bool:
    """Whether this user may mount a file system here."""
    if os.geteuid():
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _mounted(Path(folder, "disk"), 64):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False
