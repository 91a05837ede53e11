"""What a search may choose: values of single settings, and a run's settings with some chosen."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from sentei import serialization
from sentei.parts.part import check_size
from sentei.run.options import OptionError, flat, names_of, settings_from
from sentei.run.settings import Settings, Training

SHARED: Final = ("seed", "dense_epochs")
"""Settings of training that all recipes of a task have in common: a plan lists several seeds, and
all start from one dense model."""

TRAINING: Final = tuple(name for name in names_of(Training) if name not in SHARED)
"""Settings in which the recipes of a comparison may differ; the others say what the task is."""

Scalar = bool | int | float | str | None


class Declaration(BaseModel):
    """A frozen piece of a plan; unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="after")
    @classmethod
    def _of_some_size(cls, value: Any) -> Any:
        return check_size(value)


class Values(Declaration):
    """What may be chosen for one setting: a list of values, or a range."""

    values: tuple[Scalar, ...] = ()
    """The values; a bare list in a plan is this."""

    low: int | float | None = None
    """Least value of a range."""

    high: int | float | None = None
    """Greatest value of a range; whole numbers are chosen where both ends are whole."""

    log: bool = False
    """Choose evenly by the logarithm."""

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, data: Any) -> Any:
        if isinstance(data, list | tuple):
            data = {"values": data}
        if not isinstance(data, Mapping):
            raise ValueError("say a list of values, or {low: ..., high: ...}")
        values = data.get("values") or ()
        if isinstance(values, list | tuple):
            values = tuple(map(_number, values))
        return {**data, "values": values}

    @model_validator(mode="after")
    def _one_of_both(self) -> Values:
        if self.values and self.low is None and self.high is None:
            return self
        if self.values or self.low is None or self.high is None:
            raise ValueError("say a list of values, or {low: ..., high: ...}")
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low={self.low:g} must be below high={self.high:g}, above 0 if log")
        return self

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """Values that stand for all: every one of a list, the ends of a range."""
        return self.values or (self.low, self.high)


Space = dict[str, Values]
"""Settings of :data:`TRAINING` and paths in a recipe, and what may be chosen for each."""


def combinations(space: Space, limit: int | None) -> list[dict[str, Scalar]] | None:
    """Every combination of the values, in order; of more than ``limit`` so many, drawn evenly.

    Returns:
        None for a space with a range, which has no end of combinations.
    """
    if not all(choice.values for choice in space.values()):
        return None
    number = math.prod(len(choice.values) for choice in space.values())
    if limit is None or limit >= number:
        products = itertools.product(*(choice.values for choice in space.values()))
        return [dict(zip(space, values, strict=True)) for values in products]
    drawn = random.Random(0).sample(range(number), limit)
    return [_combination(space, place) for place in sorted(drawn)]


def _combination(space: Space, place: int) -> dict[str, Scalar]:
    """One of all combinations by its place among them; there may be more than memory holds."""
    chosen = {}
    for name, choice in reversed(space.items()):
        place, which = divmod(place, len(choice.values))
        chosen[name] = choice.values[which]
    return {name: chosen[name] for name in space}


def count(space: Space, limit: int | None) -> int:
    """How many trials a search makes: ``limit``, but no combination twice."""
    sizes = [len(choice.values) for choice in space.values()]
    if not all(sizes):
        assert limit is not None
        return limit
    return min(limit or math.prod(sizes), math.prod(sizes))


def apply(settings: Settings, chosen: Mapping[str, Scalar]) -> Settings:
    """The settings of a run with chosen values in their places.

    Raises:
        ValueError: A value does not fit.
    """
    plain = {name: value for name, value in chosen.items() if name in TRAINING}
    changes = [f"{path}={spell(value)}" for path, value in chosen.items() if path not in TRAINING]
    recipe = serialization.override(serialization.load(settings.recipe), changes)
    options = {**flat(settings.model_dump()), **plain}
    try:
        return settings_from(options, serialization.to_dict(recipe))
    except OptionError as error:
        raise ValueError(error.as_setting) from None


def paths(place: Any, prefix: str = "") -> Iterator[str]:
    """Every path in a recipe that is given as plain data."""
    entries: Iterable[tuple[Any, Any]] = enumerate(place) if isinstance(place, list) else ()
    if isinstance(place, Mapping):
        entries = place.items()
    for key, value in entries:
        yield f"{prefix}{key}"
        yield from paths(value, f"{prefix}{key}.")


def spell(value: Scalar) -> str:
    """A value as YAML, in one line."""
    return yaml.safe_dump(value).removesuffix("\n").removesuffix("\n...")


def _number(value: Any) -> Any:
    """A number that YAML took for a text, because it wants a point in 5e-5."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
