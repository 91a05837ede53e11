"""What trials begin with: a tiny model, data, and runs that nobody disturbed."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from .fork import Ended, run
from .same import difference
from .trap import Trap, Write
from .trial import faults_of

PATIENCE = 120
"""Seconds for a whole run."""

FAST = ("--batch-size", "16", "--epochs", "2", "--precision", "fp32", "--checkpoints", "4")


@dataclass(frozen=True)
class Scenario:
    """A command that writes, how one goes on with it, and what is compared in the end.

    Arguments hold ``OUT`` for the folder; ``given`` are copied there before.
    """

    name: str
    words: tuple[str, ...]
    again: tuple[str, ...]
    given: Path | None = None
    once: bool = False
    """Whether it refuses a folder that is there, which then must be whole."""

    def typed(self, out: Path, *, again: bool = False) -> list[str]:
        """The arguments, for a folder."""
        return [word.replace("OUT", str(out)) for word in (self.again if again else self.words)]


@dataclass
class World:
    """Folders that all trials share and none changes.

    Args:
        folder: Where everything is made.
        small: Whether short runs alone are wanted, for a slice of all trials.
    """

    folder: Path
    small: bool = False
    runs: dict[str, Path] = field(default_factory=dict)
    models: dict[str, Path] = field(default_factory=dict)
    writes: dict[str, list[Write]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @cached_property
    def model(self) -> Path:
        """An untrained BERT."""
        from helpers.tiny import write_bert

        return write_bert(self.folder / "model")

    @cached_property
    def data(self) -> dict[str, Path]:
        """Training and evaluation data."""
        from helpers.tiny import write_data

        return write_data(self.folder / "data")

    def model_of(self, kind: str) -> Path:
        """A tiny model that learns a kind of task."""
        if kind in ("classification", "tokens", "answers"):
            return self.model
        if kind not in self.models:
            from helpers.kinds import TASKS

            folder = self.folder / "kinds" / kind
            folder.mkdir(parents=True)
            words = TASKS[kind](folder, self.model)
            self.models[kind] = Path(str(words[words.index("--model") + 1]))
        return self.models[kind]

    @property
    def task(self) -> tuple[str, ...]:
        """The options of both."""
        train, evaluation = self.data["train"], self.data["eval"]
        return ("--model", f"{self.model}", "--train", f"{train}", "--eval", f"{evaluation}")

    @property
    def comparison(self) -> tuple[str, ...]:
        """The options of a comparison of two methods."""
        methods = ("--method", "magnitude", "--method", "movement", "--set", "schedule.every=2")
        fast = ("--batch-size", "16", "--epochs", "2", "--precision", "fp32", "--checkpoints", "2")
        fast += ("--patience", "10")
        return (*self.task, *methods, *fast)

    def prune(self, method: str, *more: str) -> Scenario:
        """A run of 20 steps."""
        given = ("--method", method, *fitting(method), *FAST, *more)
        words = ("prune", *self.task, *given, "--out", "OUT")
        name = " ".join((method, *more[1::2]))
        return Scenario(name, words, ("prune", "--out", "OUT", "--resume"))

    # ------------------------------------------------------------------------- references

    def reference(self, scenario: Scenario) -> Path:
        """The folder that a command leaves when nothing happens; made once, and counted."""
        if scenario.name not in self.runs:
            place = self.folder / "references" / str(len(self.runs))
            out = self.begin(scenario, place)
            trap = Trap(out)
            ended = run(scenario.typed(out), place, [out], trap=trap, seconds=PATIENCE)
            if ended.code or (wrong := faults_of(ended)):
                raise SystemExit(f"{scenario.name}: {ended}\n{wrong if not ended.code else ''}")
            logs = max((place / "logs").iterdir(), key=lambda path: int(path.name))
            lines = (logs / "writes").read_text().splitlines()
            self.writes[scenario.name] = [Write(*line.split("\t")) for line in lines]
            self.seconds[scenario.name] = ended.seconds
            self.runs[scenario.name] = out
        return self.runs[scenario.name]

    def stopped(self, scenario: Scenario, share: float = 0.6) -> Path:
        """The same, killed on the way after a checkpoint was complete."""
        name = f"{scenario.name}, stopped at {share}"
        if name not in self.runs:
            self.reference(scenario)
            writes = self.writes[scenario.name]
            journal = [n for n, write in enumerate(writes) if "metrics.jsonl" in write.path]
            at = journal[int(len(journal) * share)]
            place = self.folder / "references" / str(len(self.runs))
            out = self.begin(scenario, place)
            run(scenario.typed(out), place, [out], trap=Trap(out, at), seconds=PATIENCE)
            self.runs[name] = out
        return self.runs[name]

    def resumed(self, scenario: Scenario) -> Scenario:
        """Going on with the run that was stopped, as a command of its own."""
        given = self.stopped(scenario)
        return Scenario(f"{scenario.name}, resumed", scenario.again, scenario.again, given)

    def begin(self, scenario: Scenario, place: Path) -> Path:
        """The folder that a command will write to, with what is to be there before."""
        out = place / "out"
        place.mkdir(parents=True, exist_ok=True)
        if scenario.given is not None:
            copy(scenario.given, out)
        return out

    # ---------------------------------------------------------------------------- judging

    def go_on(self, scenario: Scenario, place: Path, out: Path) -> tuple[Ended, list[str]]:
        """Bring a command that was stopped to its end, as its user would.

        Returns:
            The last command, and faults: what each said, and a run that no command goes on with.
        """
        ended = run(scenario.typed(out, again=True), place, [out], seconds=PATIENCE)
        found = faults_of(ended)
        if not ended.code or found or scenario.again == scenario.words:
            if ended.code and not found:
                found = [f"stuck: {ended}"]
            return ended, found
        fresh = run(scenario.typed(out), place, [out], seconds=PATIENCE)
        found += faults_of(fresh)
        if fresh.code and not found:
            found = [f"stuck: {ended.message[-250:]} || {fresh.message[-250:]}"]
        return fresh, found

    def judged(self, scenario: Scenario, place: Path, out: Path) -> list[str]:
        """Go on to the end; it must be as if nothing had happened."""
        ended, found = self.go_on(scenario, place, out)
        if scenario.once and ended.refused and not self.differs(scenario, out):
            return faults_of(ended)
        return found or self.differs(scenario, out)

    def differs(self, scenario: Scenario, out: Path) -> list[str]:
        """What is not as in the reference."""
        found = difference(out, self.reference(scenario))
        return [f"silent difference: {found}"] if found else []


@cache
def fitting(method: str) -> tuple[str, ...]:
    """The options with which a method decides often enough in a run of a few steps."""
    from helpers.training import FITTING
    from sentei import methods, serialization

    recipe, options = methods.find(method).build(0.8), list[str]()
    for path, value in FITTING.items():
        try:
            recipe = serialization.override(recipe, [f"{path}={value}"])
        except ValueError:
            continue
        options += ["--set", f"{path}={value}"]
    return tuple(options)


def copy(source: Path, target: Path) -> Path:
    """A copy of a folder or file, links as links."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)
    return target


def import_what(folder: Path, words: Iterable[Sequence[str]]) -> None:
    """Have this process import what commands import, so that their children need not."""
    for number, command in enumerate(words):
        run(command, folder / f"warm{number}", [folder], seconds=PATIENCE, after=_modules)
        names = (folder / f"warm{number}" / "tmp" / "modules").read_text().split()
        for name in names:
            if name not in sys.modules and not name.startswith("__"):
                try:
                    importlib.import_module(name)
                except BaseException:  # made by another module, under a name of its own
                    continue


def _modules() -> None:
    Path(os.environ["TMPDIR"], "modules").write_text("\n".join(sorted(sys.modules)))
