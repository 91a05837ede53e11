"""What a comparison is asked to do: one frozen declaration, spelled as YAML or as options.

A plan as people write it is short; as it is kept it is complete. Every task holds all its settings
and every recipe all its values, so that a changed default never rewrites an old comparison.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationError, model_validator

from sentei import serialization
from sentei.compare.choices import (
    TRAINING,
    Declaration,
    Space,
    Values,
    apply,
    combinations,
    paths,
)
from sentei.data import hub
from sentei.files import expanded
from sentei.messages import cut, did_you_mean, explain, short
from sentei.parts.distillation import Distillation
from sentei.parts.schedule import Sparsity
from sentei.records import REFERENCES
from sentei.run.options import OptionError, flat, places, settings_from
from sentei.run.recipes import make_recipe
from sentei.run.settings import Seed, Settings, Training
from sentei.untrusted import read_yaml, to_yaml

ELSEWHERE: Final = {
    "recipe": "they are listed under `recipes`",
    "seed": "they are listed under `seeds`",
    "teacher": "it is named with its recipe, as recipes.NAME.teacher",
    "teacher_cache": "a cache belongs to one teacher, and every task and seed has its own",
    "holdout": "the size of what a search sets aside is search.part",
}
"""Settings of a run that are no settings of a task, and why."""

OF_A_TASK: Final = tuple(name for name in places() if name not in ELSEWHERE)


MOST: Final = 10_000
"""Of runs, and of trials of one search: a plan with more of them is a slip."""


class Entry(Declaration):
    """A recipe that takes part.

    In a plan file also a method's name, a recipe file's, or a mapping with ``method`` in the place
    of ``recipe``, and with ``set``, a list of ``path=value``.
    """

    recipe: dict[str, Any]
    """The recipe, complete; its sparsity is replaced with each of the plan's."""

    teacher: str | None = None
    """Model to learn from: ``dense`` (the task's own), a name on the hub, or a folder."""

    settings: dict[str, Any] = Field({})
    """Training settings in which this recipe differs from its task."""


class SearchPlan(Declaration):
    """A search of a few settings, made for each task and recipe before its runs."""

    settings: dict[str, Values] = Field({})
    """Training settings to choose."""

    set: dict[str, Values] = Field({})
    """Paths in the recipe to choose; a recipe is searched over those that it has."""

    trials: int | None = Field(None, ge=1, le=MOST)
    """Trials for each task and recipe [default: every combination]."""

    part: float = Field(0.2, gt=0, lt=1)
    """Part of the training data that judges a trial, and is not trained on in it."""

    sparsity: Sparsity | None = None
    """Search once, at this sparsity [default: at each]."""

    @model_validator(mode="after")
    def _fits(self) -> SearchPlan:
        everything = {**self.settings, **self.set}
        if not everything:
            raise ValueError("nothing to choose: list values under search.settings or search.set")
        ranges = [name for name, choice in everything.items() if not choice.values]
        if ranges and self.trials is None:
            raise ValueError(f"{ranges[0]} is a range, which has no end: say how many trials")
        number = math.prod(len(choice.values) for choice in everything.values())
        if self.trials is None and number > MOST:
            raise ValueError(f"{number:,} combinations are more than {MOST:,}: say how many trials")
        return self


class Plan(Declaration):
    """A comparison: tasks x recipes x sparsities x seeds."""

    tasks: dict[str, dict[str, Any]] = Field(min_length=1)
    """Each task's settings: any of a run's but recipe, seed, teacher, teacher_cache, holdout."""

    recipes: dict[str, Entry] = Field(min_length=1)
    """What is compared."""

    sparsities: tuple[Sparsity, ...] = Field(min_length=1)
    """Fractions of the prunable weights to remove, in [0, 1)."""

    seeds: tuple[Seed, ...] = Field((42,), min_length=1)
    """One run of everything for each."""

    baseline: str
    """The recipe that paired differences are against."""

    search: SearchPlan | None = None
    """What to choose before; None chooses nothing."""

    def space(self, recipe: str) -> Space:
        """What is searched for a recipe: the training settings, and the paths that it has."""
        if self.search is None:
            return {}
        known = set(paths(self.recipes[recipe].recipe))
        having = {path: choice for path, choice in self.search.set.items() if path in known}
        return {**self.search.settings, **having}

    def dump(self) -> str:
        """The plan as YAML, complete; :func:`load` takes it back."""
        return to_yaml(self.model_dump(mode="json"))

    @model_validator(mode="after")
    def _fits(self) -> Plan:
        pairs = len(self.tasks) * len(self.recipes)
        number = pairs * len(self.sparsities) * len(self.seeds)
        if number > MOST:
            raise ValueError(f"{number:,} runs are more than {MOST:,}: divide the plan")
        for kind, names in (("tasks", self.tasks), ("recipes", self.recipes)):
            for name in names:
                if name in REFERENCES or not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,99}", name):
                    raise ValueError(
                        f"{kind}.{short(name)[1:-1]}: not a name for a folder, which at most 100 "
                        f"letters, digits and ._+- make; {' and '.join(REFERENCES)} are taken"
                    )
        for kind, numbers in (("sparsities", self.sparsities), ("seeds", self.seeds)):
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"{kind}: one of {list(numbers)} is there twice")
        if self.baseline not in self.recipes:
            near = did_you_mean(self.baseline, self.recipes)
            raise ValueError(f"baseline={self.baseline!r}: no such recipe{near}")
        for name, entry in self.recipes.items():
            self._check_entry(name, entry)
        if self.search:
            self._check_search(self.search)
        return self

    def _check_entry(self, name: str, entry: Entry) -> None:
        for task, settings in self.tasks.items():
            if entry.teacher == "dense" and not settings["dense_epochs"]:
                raise ValueError(
                    f"recipes.{name}.teacher=dense: task {task} trains no dense model; give it "
                    "dense_epochs, or name a fine-tuned model"
                )

    def _check_search(self, search: SearchPlan) -> None:
        _check_names(search.settings, "search.settings", TRAINING)
        for path in search.set:
            having = [name for name in self.recipes if path in self.space(name)]
            if not having:
                every = {p for entry in self.recipes.values() for p in paths(entry.recipe)}
                raise ValueError(
                    f"search.set.{path}: no recipe has this{did_you_mean(path, every)}"
                )
        for name, entry in self.recipes.items():
            for task, settings in self.tasks.items():
                run = settings_from({**settings, **entry.settings}, entry.recipe)
                for key, choice in self.space(name).items():
                    for value in choice.ends:
                        try:
                            apply(run, {key: value})
                        except ValueError as error:
                            raise ValueError(f"search: {key} of recipe {name}: {error}") from None
                _check_together(self.space(name), run, name)
                if settings["train"] and not settings["eval"]:
                    raise ValueError(
                        f"tasks.{task}.eval is missing: without it every seed sets other texts "
                        "aside, and a search would train on what another seed is measured on"
                    )


def _check_together(space: Space, run: Settings, recipe: str) -> None:
    """Refuse listed settings of training that fit one by one and not each other."""
    listed = {name: choice for name, choice in space.items() if name in TRAINING and choice.values}
    for chosen in combinations(listed, 1000) or ():
        try:
            Training.model_validate(run.training.model_dump() | chosen)
        except ValidationError as error:
            pair = ", ".join(f"{name}={short(value)}" for name, value in chosen.items())
            raise ValueError(f"search: {pair} of recipe {recipe}: {explain(error)}") from None


def load(source: Path | Mapping[str, Any]) -> Plan:
    """Make a plan from a YAML file, whose paths are relative to it, or from a mapping.

    Raises:
        ValueError: The file cannot be read, or a key or value is wrong; names its path, the value
            and the reason.
    """
    origin, folder = "plan", Path()
    data: Any = source
    if isinstance(source, Path):
        origin, folder, data = str(source), source.parent, read_yaml(source)
    if not isinstance(data, Mapping):
        raise ValueError(f"{origin}: expected keys and values, found {type(data).__name__}")
    try:
        return Plan.model_validate(_complete(data, folder))
    except ValidationError as error:
        raise ValueError(f"{origin}: {explain(error, _keys)}") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{origin}: {cut(str(error), 1000)}") from None


def _complete(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What people write, with every default. What is not as expected is left to the model."""
    plan = dict(data)
    common = _mapping(plan.pop("settings", None), "settings", OF_A_TASK)
    for kind in ("tasks", "recipes"):
        _check_different(plan.get(kind), kind)
    if isinstance(plan.get("tasks"), Mapping):
        plan["tasks"] = {
            str(name): _task(task, f"tasks.{name}", common, folder)
            for name, task in plan["tasks"].items()
        }
    if isinstance(plan.get("recipes"), list):
        plan["recipes"] = {str(name).replace(":", "-"): str(name) for name in plan["recipes"]}
    if isinstance(plan.get("recipes"), Mapping):
        plan["recipes"] = {
            str(name): _entry(entry, str(name), folder) for name, entry in plan["recipes"].items()
        }
        plan.setdefault("baseline", next(iter(plan["recipes"]), ""))
    return plan


def _check_different(names: Any, kind: str) -> None:
    """Refuse a name that is there twice, and more names than a plan can have runs."""
    if isinstance(names, list | Mapping):
        if len(names) > MOST:
            raise ValueError(f"{kind}: {len(names):,} are more than {MOST:,}: divide the plan")
        counts = Counter(map(str, names))
        twice = next((name for name, count in counts.items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"{kind}: {short(twice)} is there twice")


def _task(task: Any, where: str, common: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    own = _mapping(task, where, OF_A_TASK)
    values = {**common, **own}
    if "model" not in values:
        raise ValueError(f"{where}.model is missing: name one here or under `settings`")
    for name in ("train", "eval"):
        if values.get(name):
            values[name] = _place_of_data(values[name], folder)
    values["model"] = _place_of_model(values["model"], folder)
    settings = _settings(values, {where: own, "settings": common})
    options = flat(settings.model_dump(mode="json"))
    return {name: value for name, value in options.items() if name not in ELSEWHERE}


def _entry(entry: Any, name: str, folder: Path) -> Any:
    where = f"recipes.{name}"
    if entry is None:
        entry = {"method": name}
    if isinstance(entry, str):
        entry = {"recipe" if entry.endswith((".yaml", ".yml")) else "method": entry}
    values = _mapping(entry, where, ("method", "set", *Entry.model_fields))
    method, source = values.pop("method", None), values.pop("recipe", None)
    changes, teacher = values.pop("set", None) or [], values.get("teacher")
    if not isinstance(changes, list) or not all(isinstance(change, str) for change in changes):
        raise ValueError(f"{where}.set: expected a list of path=value, found {short(changes)}")
    if bool(method) == bool(source):
        raise ValueError(f"{where}: name a method or a recipe, one of them")
    try:
        if isinstance(source, Mapping):
            recipe = serialization.override(serialization.load(source), changes)
            if teacher and recipe.distill is None:
                recipe = recipe.model_copy(update={"distill": Distillation()})
        else:
            file = Path(_place(source, folder)) if source else None
            recipe = make_recipe(method, None, file, changes, teacher=bool(teacher))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if teacher and recipe.distill is None:
        raise ValueError(f"{where}.teacher={teacher}: the recipe learns from none")
    if teacher and teacher != "dense":
        values["teacher"] = _place_of_model(teacher, folder)
    own = _mapping(values.get("settings"), f"{where}.settings", TRAINING)
    settings = _settings({"model": "", **own}, {f"{where}.settings": own})
    values["settings"] = {key: flat(settings.model_dump())[key] for key in own}
    return {"recipe": serialization.to_dict(recipe), **values}


def _settings(values: Mapping[str, Any], origins: Mapping[str, Mapping[str, Any]]) -> Settings:
    """The settings, checked; ``origins`` says which mapping of the plan each came from."""
    try:
        return settings_from(values, {})
    except OptionError as error:
        origin = next((place for place, keys in origins.items() if error.name in keys), None)
        if origin:
            raise ValueError(f"{origin}.{error.as_setting}") from None
        raise ValueError(f"{next(iter(origins))}: {error.as_setting}") from None


def _mapping(value: Any, where: str, known: Collection[str]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected keys and values, found {short(value)}")
    _check_names(value, where, known)
    return dict(value)


def _check_names(names: Iterable[str], where: str, known: Collection[str]) -> None:
    for name in names:
        if name in known:
            continue
        if name in ELSEWHERE:
            raise ValueError(f"{where}.{name}: not here; {ELSEWHERE[name]}")
        if name in OF_A_TASK:
            raise ValueError(
                f"{where}.{name}: the same for all recipes, or there is nothing to compare; set it "
                "with the task"
            )
        raise ValueError(f"unknown setting {where}.{name}{did_you_mean(str(name), known)}")


def _place(path: Any, folder: Path) -> str:
    return os.path.abspath(folder / expanded(str(path)))


def _place_of_data(name: Any, folder: Path) -> str:
    """A file or folder by its place; a dataset on the hub as it is."""
    of_hub = hub.parse(str(name)) and not (folder / expanded(str(name))).exists()
    return str(name) if of_hub else _place(name, folder)


def _place_of_model(name: Any, folder: Path) -> str:
    """A folder by its place; a name on the hub as it is."""
    return _place(name, folder) if (folder / expanded(str(name))).is_dir() else str(name)


def _keys(path: tuple[int | str, ...]) -> list[str]:
    """What may stand in the place of the last key of a path."""
    declared: type[Declaration] = Entry
    if len(path) == 1:
        declared = Plan
    elif path[0] == "search":
        declared = SearchPlan if len(path) == 2 else Values
    return [*declared.model_fields, "settings"]
