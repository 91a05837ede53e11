"""The runs that a plan asks for, in the order in which they are begun.

OUT/runs/TASK/start/seed1         the dense model, where the task trains one; all others start there
OUT/runs/TASK/dense/seed1         that model, trained on as long as the others without pruning
OUT/runs/TASK/RECIPE/0.9/seed1    a recipe at a sparsity
OUT/search/TASK/start             a dense model that has not seen what judges the trials
OUT/search/TASK/RECIPE/0.9/003    a trial; choice.json beside them is what was chosen

Every one is a run's folder as ``sentei prune`` writes it. What is in the folders is the only truth
about what is done: a finished run has its ``report.json``, one that failed its ``error.txt``, and
one that a worker is at its ``.lease``.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from sentei import serialization
from sentei.compare.choices import Scalar, Space, count
from sentei.compare.plan import Plan
from sentei.messages import nearest
from sentei.methods.knowledge_aware import Stages
from sentei.methods.magnitude import magnitude
from sentei.recipe import Recipe
from sentei.run.options import settings_from
from sentei.run.result import why_unfinished
from sentei.run.settings import Settings
from sentei.run.teacher import name_teacher
from sentei.untrusted import read_json

Role = Literal["start", "dense", "pruned", "trial"]

RUNS: Final = "runs/"
"""Where the runs of the plan are, apart from those of its searches."""


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

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
        """Whether its result is there, and of the size that was written."""
        return why_unfinished(self.folder, sums=False) is None

    @property
    def error_file(self) -> Path:
        """Why it failed, until it is begun again."""
        return self.folder / "error.txt"

    @property
    def lease_file(self) -> Path:
        """There while a worker is at it."""
        return self.folder / ".lease"

    @property
    def values_file(self) -> Path:
        """Of a trial: the values it tries, and their number in the study they were drawn from."""
        return self.folder / "values.json"

    def drawn(self) -> dict[str, Any]:
        """What ``values_file`` holds; ``values`` are empty before a trial is begun."""
        if not self.values_file.is_file():
            return {"values": {}}
        return _read(self.values_file)


@dataclass(frozen=True)
class Search:
    """The search of one recipe at one task; ``sparsity`` is None where it serves all of them."""

    name: str
    task: str
    recipe: str
    sparsity: float | None
    folder: Path
    space: Space
    trials: list[Run] = field(default_factory=list)

    @property
    def ranged(self) -> bool:
        """Whether values are drawn from a range, and not every combination of lists tried."""
        return any(not choice.values for choice in self.space.values())

    @property
    def choice_file(self) -> Path:
        """Where the choice is written, once."""
        return self.folder / "choice.json"

    def chosen(self) -> dict[str, Scalar] | None:
        """The values that were chosen; None before."""
        if not self.choice_file.is_file():
            return None
        values: dict[str, Scalar] = _read(self.choice_file)["values"]
        return values


def _read(file: Path) -> dict[str, Any]:
    """What a search wrote: values of settings by name, and of what they are."""
    written = read_json(file)
    if not isinstance(written, dict) or not isinstance(written.get("values"), dict):
        raise ValueError(f"{file}: it holds no values; a search wrote it, and another changed it")
    return written


class Runs(Mapping[str, Run]):
    """All runs of a comparison by their names, and its searches.

    Args:
        plan: What is compared.
        out: Folder of the comparison.
    """

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan = plan
        self.out = Path(os.path.abspath(out))
        self.searches: dict[str, Search] = {}
        self._runs = {run.name: run for run in self._of_plan()}

    def __getitem__(self, name: str) -> Run:
        return self._runs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def select(self, patterns: Sequence[str]) -> list[Run]:
        """The runs of those names, and what they wait for, each after what it needs.

        Args:
            patterns: Globs over TASK/RECIPE/SPARSITY/seedN; ``*`` stands for slashes too.

        Raises:
            ValueError: One of them names no run; says the nearest.
        """
        names = [name for name in self if name.startswith(RUNS)]
        selected = set[str]()
        for pattern in patterns:
            matches = fnmatch.filter(names, RUNS + pattern)
            if not matches:
                near = nearest(RUNS + pattern, names, cutoff=0) or names[0]
                raise ValueError(
                    f"--only {pattern}: names no run; they are named like "
                    f"{near.removeprefix(RUNS)}, with * for anything"
                )
            selected.update(matches)
        for run in reversed(self._runs.values()):
            if run.name in selected:
                selected.update(run.needs)
                if run.search and run.role == "pruned":
                    selected.update(trial.name for trial in self.searches[run.search].trials)
        return [run for run in self.values() if run.name in selected]

    def _of_plan(self) -> Iterator[Run]:
        plan = self.plan
        if plan.search:
            for task in plan.tasks:
                yield from self._trials(task)
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

    def _trials(self, task: str) -> Iterator[Run]:
        """Of all searches at a task, after the dense model that they start from."""
        plan, declared = self.plan, self.plan.search
        assert declared is not None
        seed, holdout, start = plan.seeds[0], declared.part, None
        if plan.tasks[task]["dense_epochs"]:
            start = self._reference(f"search/{task}/start", task, seed, holdout=holdout)
            yield start
        sparsities = plan.sparsities if declared.sparsity is None else (declared.sparsity,)
        for sparsity in sparsities:
            for recipe in plan.recipes:
                search = self._search(task, recipe, sparsity if declared.sparsity is None else None)
                trials = count(search.space, declared.trials) if search.space else 0
                for number in range(trials):
                    run = Run(
                        name=f"{search.name}/{number:03}",
                        role="trial",
                        task=task,
                        recipe=recipe,
                        sparsity=sparsity,
                        seed=seed,
                        folder=search.folder / f"{number:03}",
                        settings=self._settings(task, recipe, sparsity, seed, start, holdout),
                        needs=(start.name,) if start else (),
                        search=search.name,
                        number=number,
                    )
                    search.trials.append(run)
                    yield run

    def _search(self, task: str, recipe: str, sparsity: float | None) -> Search:
        name = f"search/{task}/{recipe}/{'all' if sparsity is None else f'{sparsity:g}'}"
        space = self.plan.space(recipe)
        search = Search(name, task, recipe, sparsity, self.out / name, space)
        if space:
            self.searches[name] = search
        return search

    def _pruned(self, task: str, recipe: str, sparsity: float, seed: int, start: Run | None) -> Run:
        name = f"{RUNS}{task}/{recipe}/{sparsity:g}/seed{seed}"
        searches = (f"search/{task}/{recipe}/{label}" for label in ("all", f"{sparsity:g}"))
        return Run(
            name=name,
            role="pruned",
            task=task,
            recipe=recipe,
            sparsity=sparsity,
            seed=seed,
            folder=self.out / name,
            settings=self._settings(task, recipe, sparsity, seed, start),
            needs=(start.name,) if start else (),
            search=next((search for search in searches if search in self.searches), None),
        )

    def _reference(
        self,
        name: str,
        task: str,
        seed: int,
        start: Run | None = None,
        holdout: float | None = None,
    ) -> Run:
        """The dense model that others start from, or ``start`` trained on."""
        declared = self.plan.tasks[task]
        role: Role = "dense" if name.startswith(f"{RUNS}{task}/dense/") else "start"
        settings = {
            **declared,
            "dense_epochs": 0,
            "epochs": declared["dense_epochs"] if role == "start" else declared["epochs"],
            "model": str(start.folder / "model") if start else declared["model"],
            "seed": seed,
            "holdout": holdout,
        }
        return Run(
            name=name,
            role=role,
            task=task,
            recipe=role,
            sparsity=0.0,
            seed=seed,
            folder=self.out / name,
            settings=settings_from(settings, serialization.to_dict(unpruned())),
            needs=(start.name,) if start else (),
        )

    def _settings(
        self,
        task: str,
        recipe: str,
        sparsity: float,
        seed: int,
        start: Run | None,
        holdout: float | None = None,
    ) -> Settings:
        entry = self.plan.recipes[recipe]
        at = f"schedule.sparsity={sparsity!r}"
        pruning = serialization.override(serialization.load(entry.recipe), [at])
        settings: dict[str, Any] = {**self.plan.tasks[task], **entry.settings, "dense_epochs": 0}
        dense = str(start.folder / "model") if start else None
        teacher = name_teacher(entry.teacher, pruning, dense)
        fresh = teacher == dense and pruning.distill and pruning.distill.student == "pretrained"
        if dense and not fresh:
            settings["model"] = dense
        settings |= {"teacher": teacher, "seed": seed, "holdout": holdout}
        chosen = settings_from(settings, serialization.to_dict(pruning))
        if not chosen.task.refers or teacher is not None:
            return chosen
        cache = self.out / "embeddings" / task  # all runs of a task ask one model the same texts
        teaching = chosen.teacher.model_copy(update={"cache": cache})
        return chosen.model_copy(update={"teacher": teaching})


def unpruned() -> Recipe:
    """A recipe that removes nothing, and decides so once: ordinary training."""
    schedule = Stages(sparsity=0.0, stages=1)
    return magnitude(0.0).model_copy(update={"method": "dense", "schedule": schedule})
