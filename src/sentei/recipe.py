"""The declaration of a pruning method: which parts, with which numbers.

One declaration has four spellings that mean the same: Python, a dict, YAML, and ``path=value``
overrides. Dumps are complete, defaults included, so that a default changed later never rewrites
an old run.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from sentei.parts.budget import Budget, Global
from sentei.parts.distillation import Distillation
from sentei.parts.masks import Mask, Project
from sentei.parts.part import Part
from sentei.parts.schedule import Schedule
from sentei.parts.scope import Scope
from sentei.parts.scores import Score


class Recipe(Part):
    """A pruning method, declared: scope x score x schedule x budget x mask."""

    method: str = Field(min_length=1)
    """Its name, for people; the parts decide what happens."""

    scope: Scope = Scope()
    """The prunable weights."""

    score: Score
    """What a weight is worth."""

    schedule: Schedule
    """How much is pruned when."""

    budget: Budget = Global()
    """How the sparsity is spread over the sites."""

    mask: Mask = Project()
    """How a decision reaches the weights."""

    distill: Distillation | None = None
    """What a teacher adds to the loss; None trains on the labels alone."""

    def check(self, total_steps: int) -> None:
        """Refuse what cannot work in ``total_steps`` optimizer steps.

        Raises:
            ValueError: The schedule does not fit, or the first decision comes before the first
                score.
        """
        if total_steps < 1:
            raise ValueError(f"total_steps={total_steps}: pruning needs an optimizer step")
        self.schedule.check(total_steps)
        self.score.check(self.schedule.first_update(total_steps))

    @property
    def bytes_per_weight(self) -> int:
        """Memory the pruner keeps per prunable float32 weight: score memory and a bool mask."""
        return 4 * len(self.score.memory) + 1


def load(source: Mapping[str, Any] | str | Path) -> Recipe:
    """Make a recipe from a mapping, YAML text, or the path of a YAML file.

    Raises:
        ValueError: The file cannot be read, or a key or value is wrong; names each one's path,
            value and reason.
    """
    origin = "recipe"
    third_party()
    if isinstance(source, Path):
        origin = str(source)
        try:
            source = source.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"recipe {origin}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"recipe {origin}: cannot be read (not UTF-8 text)") from error
    if isinstance(source, str):
        try:
            source = yaml.safe_load(source)
        except yaml.YAMLError as error:
            raise ValueError(f"{origin}: not valid YAML: {error}") from error
    if not isinstance(source, Mapping):
        raise ValueError(f"{origin}: expected keys and values, found {type(source).__name__}")
    try:
        return Recipe.model_validate(dict(source))
    except ValidationError as error:
        raise ValueError(f"{origin}: {explain(error)}") from None


@cache
def third_party() -> tuple[Any, ...]:
    """What other packages add through the entry-point group ``sentei.methods``.

    Importing them is what makes their parts known to :func:`load`.

    Raises:
        ValueError: One of them cannot be imported; names it.
    """
    found = []
    for entry in entry_points(group="sentei.methods"):
        try:
            found.append(entry.load())
        except Exception as error:  # whatever a foreign module does when it is imported
            raise ValueError(
                f"the method {entry.name!r}, added by {entry.value}, cannot be loaded "
                f"({type(error).__name__}: {error}): update or remove that package"
            ) from error
    return tuple(found)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, every default included; :func:`load` takes it back."""
    return _kind_first(recipe.model_dump(mode="json", serialize_as_any=True))


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every default included: ``load(dump(r)) == r``."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False)


def override(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Change single values: ``override(recipe, ["score.beta1=0.9", "budget=uniform"])``.

    Values are YAML. A part given by its kind alone gets that kind's defaults.

    Raises:
        ValueError: A setting is not ``path=value``, its path does not exist, or its value does
            not fit.
    """
    data = to_dict(recipe)
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ValueError(f"--set {setting}: expected path=value, such as score.beta1=0.9")
        place = data
        for depth, key in enumerate(keys):
            if not isinstance(place, dict) or key not in place:
                known = list(place) if isinstance(place, dict) else []
                raise ValueError(
                    f"--set {setting}: no setting {'.'.join(keys[: depth + 1])!r}"
                    + _nearest(key, known)
                )
            if depth < len(keys) - 1:
                place = place[key]
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {setting}: the value is not valid YAML: {error}") from error
        if keys[-1] == "kind" and value != place["kind"]:
            place.clear()  # another kind has other fields: start from its defaults
        place[keys[-1]] = value
        recipe = load(data)
        data = to_dict(recipe)  # a part of another kind has other settings from here on
    return recipe


def _kind_first(data: dict[str, Any]) -> dict[str, Any]:
    """Each part's kind before its numbers, for the reader of a dump."""
    ordered = sorted(data.items(), key=lambda item: item[0] != "kind")
    return {k: _kind_first(v) if isinstance(v, dict) else v for k, v in ordered}


def explain(error: ValidationError) -> str:
    """What is wrong with a declaration, in one line: path, value, reason of each mistake."""
    return "; ".join(_explain_one(dict(detail)) for detail in error.errors(include_url=False))


def _explain_one(detail: Mapping[str, Any]) -> str:
    path = ".".join(str(step) for step in detail["loc"]) or "the whole"
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] == "extra_forbidden":
        key = detail["loc"][-1]
        return f"unknown setting {path}" + _nearest(str(key), _fields_named_like(str(key)))
    reason = re.sub(r"^(Value error|Input), ?", "", detail["msg"])
    reason = re.sub(r"^Input ", "", reason)
    value = detail["input"]
    shown = f"={value!r}" if not isinstance(value, Mapping) else ""
    return f"{path}{shown}: {reason}"


def _fields_named_like(key: str) -> list[str]:
    parts: list[type[Part]] = [Part]
    for part in parts:
        parts.extend(part.__subclasses__())
    return sorted({name for part in parts for name in part.model_fields})


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
