"""The runs that a plan asks for, in the order in which they are begun.

OUT/runs/TASK/start/seed1         the dense model, where the task trains one; all others start there
OUT/runs/TASK/dense/seed1         that model, trained on as long as the others without pruning
OUT/runs/TASK/RECIPE/0.9/seed1    a recipe at a sparsity
OUT/search/TASK/start             a dense model that has not seen what judges the trials
OUT/search/TASK/RECIPE/0.9/003    a trial; choice.json beside them is what was chosen

Every one is a run's folder as ``sentei prune`` writes it. What is in the folders is the only truth
about what is done: a finished run has its ``report.json``, one that failed its ``error.txt``.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from sentei import serialization
from sentei.compare.choices import Scalar, Space, count
from sentei.compare.plan import Plan
from sentei.methods.knowledge_aware import Stages
from sentei.methods.magnitude import magnitude
from sentei.recipe import Recipe
from sentei.run.prepare import optimizer_steps
from sentei.run.settings import Settings
from sentei.run.teacher import choose_teacher, name_teacher, unless_labels_suffice
from sentei.tasks.corpus import Corpus, load_corpus

Role = Literal["start", "dense", "pruned", "trial"]

RUNS: Final = "runs/"
"""Where the runs of the plan are, apart from those of its searches."""


@dataclass(frozen=True)
class Cell:
    """One run.

    ``name`` is the place of ``folder`` below the comparison's. ``settings`` lack what a search
    chooses. ``needs`` are the names of runs that must be finished before, ``search`` is the search
    it belongs to (a trial) or waits for; ``number`` counts the trials of a search.
    """

    name: str
    role: Role
    task: str
    recipe: str
    sparsity: float
    seed: int
    folder: Path
    settings: Settings
    needs: tuple[str, ...] = ()
    search: str | None = None
    number: int = 0

    @property
    def begun(self) -> bool:
        """Whether anything of it is there."""
        return (self.folder / "run.yaml").is_file()

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return (self.folder / "report.json").is_file()

    @property
    def error_file(self) -> Path:
        """Where a failure is told, until the run is begun again."""
        return self.folder / "error.txt"

    @property
    def values_file(self) -> Path:
        """Of a trial: the values it tries, and their number in the study they were drawn from."""
        return self.folder / "values.json"

    def drawn(self) -> dict[str, Any]:
        """What ``values_file`` holds; ``values`` are empty before a trial is begun."""
        if not self.values_file.is_file():
            return {"values": {}}
        drawn: dict[str, Any] = json.loads(self.values_file.read_text("utf-8"))
        return drawn


@dataclass(frozen=True)
class Tuning:
    """The search of one recipe at one task; ``sparsity`` is None where it serves all of them."""

    name: str
    task: str
    recipe: str
    sparsity: float | None
    folder: Path
    space: Space
    trials: list[Cell] = field(default_factory=list)

    @property
    def choice_file(self) -> Path:
        """Where the choice is written, once."""
        return self.folder / "choice.json"

    def chosen(self) -> dict[str, Scalar] | None:
        """The values that were chosen; None before."""
        if not self.choice_file.is_file():
            return None
        values: dict[str, Scalar] = json.loads(self.choice_file.read_text("utf-8"))["values"]
        return values


class Grid:
    """All runs of a comparison, and its searches.

    Args:
        plan: What is compared.
        out: Folder of the comparison.
    """

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan = plan
        self.out = Path(os.path.abspath(out))
        self.tunings: dict[str, Tuning] = {}
        self.cells = {cell.name: cell for cell in self._make()}

    def wanted(self, patterns: Sequence[str]) -> list[Cell]:
        """The runs of those names, and what they wait for, each after what it needs.

        Args:
            patterns: Globs over TASK/RECIPE/SPARSITY/seedN; ``*`` stands for slashes too.

        Raises:
            ValueError: One of them names no run; says the nearest.
        """
        names = [cell.name for cell in self.cells.values() if cell.name.startswith(RUNS)]
        asked = set[str]()
        for pattern in patterns:
            found = fnmatch.filter(names, RUNS + pattern)
            if not found:
                near = difflib.get_close_matches(RUNS + pattern, names, n=1, cutoff=0)
                hint = near[0].removeprefix(RUNS)
                raise ValueError(
                    f"--only {pattern}: names no run; they are named like {hint}, with * for "
                    "anything"
                )
            asked.update(found)
        for cell in reversed(self.cells.values()):
            if cell.name in asked:
                asked.update(cell.needs)
                if cell.search and cell.role == "pruned":
                    asked.update(trial.name for trial in self.tunings[cell.search].trials)
        return [cell for cell in self.cells.values() if cell.name in asked]

    def _make(self) -> Iterator[Cell]:
        plan = self.plan
        if plan.search:
            for task in plan.tasks:
                yield from self._searches(task)
        for seed in plan.seeds:
            for task, settings in plan.tasks.items():
                start = None
                if settings["dense_epochs"]:
                    start = self._reference(f"{RUNS}{task}/start/seed{seed}", task, seed)
                    yield start
                yield self._reference(f"{RUNS}{task}/dense/seed{seed}", task, seed, start)
                for sparsity in plan.sparsities:
                    for recipe in plan.recipes:
                        yield self._pruned(task, recipe, sparsity, seed, start)

    def _searches(self, task: str) -> Iterator[Cell]:
        plan, search = self.plan, self.plan.search
        assert search is not None
        seed, holdout, start = plan.seeds[0], search.part, None
        if plan.tasks[task]["dense_epochs"]:
            start = self._reference(f"search/{task}/start", task, seed, holdout=holdout)
            yield start
        sparsities = plan.sparsities if search.sparsity is None else (search.sparsity,)
        for sparsity in sparsities:
            for recipe in plan.recipes:
                tuning = self._tuning(task, recipe, sparsity if search.sparsity is None else None)
                for number in range(count(tuning.space, search.trials) if tuning.space else 0):
                    cell = Cell(
                        name=f"{tuning.name}/{number:03}",
                        role="trial",
                        task=task,
                        recipe=recipe,
                        sparsity=sparsity,
                        seed=seed,
                        folder=tuning.folder / f"{number:03}",
                        settings=self._settings(task, recipe, sparsity, seed, start, holdout),
                        needs=(start.name,) if start else (),
                        search=tuning.name,
                        number=number,
                    )
                    tuning.trials.append(cell)
                    yield cell

    def _tuning(self, task: str, recipe: str, sparsity: float | None) -> Tuning:
        name = f"search/{task}/{recipe}/{'all' if sparsity is None else f'{sparsity:g}'}"
        space = self.plan.space(recipe)
        tuning = Tuning(name, task, recipe, sparsity, self.out / name, space)
        if space:
            self.tunings[name] = tuning
        return tuning

    def _pruned(
        self, task: str, recipe: str, sparsity: float, seed: int, start: Cell | None
    ) -> Cell:
        name = f"{RUNS}{task}/{recipe}/{sparsity:g}/seed{seed}"
        searches = (f"search/{task}/{recipe}/{label}" for label in ("all", f"{sparsity:g}"))
        return Cell(
            name=name,
            role="pruned",
            task=task,
            recipe=recipe,
            sparsity=sparsity,
            seed=seed,
            folder=self.out / name,
            settings=self._settings(task, recipe, sparsity, seed, start),
            needs=(start.name,) if start else (),
            search=next((search for search in searches if search in self.tunings), None),
        )

    def _reference(
        self,
        name: str,
        task: str,
        seed: int,
        start: Cell | None = None,
        holdout: float | None = None,
    ) -> Cell:
        """The dense model that others start from, or ``start`` trained on."""
        given = self.plan.tasks[task]
        role: Role = "dense" if name.startswith(f"{RUNS}{task}/dense/") else "start"
        settings = {
            **given,
            "dense_epochs": 0,
            "epochs": given["dense_epochs"] if role == "start" else given["epochs"],
            "model": str(start.folder / "model") if start else given["model"],
            "recipe": serialization.to_dict(unpruned()),
            "seed": seed,
            "holdout": holdout,
        }
        return Cell(
            name=name,
            role=role,
            task=task,
            recipe=role,
            sparsity=0.0,
            seed=seed,
            folder=self.out / name,
            settings=Settings.model_validate(settings),
            needs=(start.name,) if start else (),
        )

    def _settings(
        self,
        task: str,
        recipe: str,
        sparsity: float,
        seed: int,
        start: Cell | None,
        holdout: float | None = None,
    ) -> Settings:
        entry = self.plan.recipes[recipe]
        at = f"schedule.sparsity={sparsity!r}"
        chosen = serialization.override(serialization.load(entry.recipe), [at])
        given: dict[str, Any] = {**self.plan.tasks[task], **entry.settings, "dense_epochs": 0}
        dense = str(start.folder / "model") if start else None
        teacher = name_teacher(entry.teacher, chosen, dense)
        fresh = teacher == dense and chosen.distill and chosen.distill.student == "pretrained"
        if dense and not fresh:
            given["model"] = dense
        given |= {"teacher": teacher, "seed": seed, "holdout": holdout}
        return Settings.model_validate({**given, "recipe": serialization.to_dict(chosen)})


def unpruned() -> Recipe:
    """A recipe that removes nothing, and decides so once: ordinary training."""
    schedule = Stages(sparsity=0.0, stages=1)
    return magnitude(0.0).model_copy(update={"method": "dense", "schedule": schedule})


def check(grid: Grid) -> None:
    """Refuse what could not run, before anything does: reads each task's data once.

    Raises:
        ValueError: Names the run and the reason.
    """
    corpora: dict[tuple[str, float | None], Corpus] = {}
    for cell in grid.cells.values():
        settings = cell.settings
        try:
            key = cell.task, settings.holdout
            if key not in corpora:
                corpora[key] = load_corpus(settings)
            examples = len(corpora[key].train)
            recipe = settings.load_recipe().with_examples(examples)
            if corpora[key].kind.one_each:  # else only the run itself knows its steps
                recipe.check(optimizer_steps(examples, settings.epochs, settings))
            choice = choose_teacher(settings, recipe, corpora[key].kind)
            unless_labels_suffice(choice, settings, recipe, corpora[key])
        except ValueError as error:
            raise ValueError(f"{cell.name}: {error}") from None


def write_once(path: Path, text: str) -> bool:
    """Write a file that is nobody's to change; False, and nothing, where it is there already.

    Of processes that do this at the same time, on any machine, one succeeds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8")
        try:
            os.link(draft, path)
        except FileExistsError:
            raise
        except OSError:  # a disk without hard links: readers may see it half written
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True
