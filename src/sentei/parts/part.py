"""What every part of a recipe is: a frozen bag of hyper-parameters, named by its ``kind``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from sentei.messages import did_you_mean, short

LARGEST: Final = 1e15
"""Of a number: no weights, steps or bytes are so many, and every such number is exact."""


def check_size(value: Any) -> Any:
    """The value of a field, which if it is a number must be at most :data:`LARGEST` in size.

    Raises:
        PydanticCustomError: It is not.
    """
    if isinstance(value, int | float) and LARGEST < abs(value) < math.inf:
        raise PydanticCustomError("size", "should be at most 1e15 in size")
    return value


class Part(BaseModel):
    """A frozen declaration: hyper-parameters only, never state.

    An axis of the recipe (schedule, score, ...) is an abstract part without a ``kind``; its final
    subclasses each carry a ``kind`` field with their name as the default. A mapping given for an
    axis is built by the subclass of that kind, so a part defined elsewhere is found as soon as its
    module is imported. Field documentation is the string after the field.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    axis: ClassVar[str] = ""
    """Name of the axis, on the abstract part of that axis only."""

    @classmethod
    def kinds(cls) -> dict[str, type[Self]]:
        """Every final part of this axis, by kind."""
        return {part.model_fields["kind"].default: part for part in _leaves(cls)}

    @classmethod
    def spelled_out(cls, value: Any) -> Any:
        """The mapping or kind that an axis's own short spelling stands for."""
        return value

    @property
    def label(self) -> str:
        """What people call it: its kind in recipes."""
        kind: str = type(self).model_fields["kind"].default
        return kind

    def fits(self, recipe: Any) -> None:
        """Look at the other parts of the :class:`~sentei.recipe.Recipe` that this one stands in.

        Raises:
            ValueError: There is one that it cannot stand beside; says which would do.
        """
        return None

    @field_validator("*", mode="after")
    @classmethod
    def _of_some_size(cls, value: Any) -> Any:
        return check_size(value)

    @model_validator(mode="wrap")
    @classmethod
    def _choose_kind(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, cls):
            return value
        if "kind" in cls.model_fields or not cls.axis:
            return handler(value)
        value = cls.spelled_out(value)
        kinds = cls.kinds()
        kind = value.get("kind") if isinstance(value, Mapping) else value
        if not isinstance(kind, str) or kind not in kinds:
            hint = did_you_mean(str(kind)[:60], kinds)
            raise PydanticCustomError(
                "part_kind",
                "{kind} is no kind of {axis}: choose from {known}{hint}",
                {"kind": short(kind), "axis": cls.axis, "known": ", ".join(kinds), "hint": hint},
            )
        return kinds[kind].model_validate(value if isinstance(value, Mapping) else {"kind": kind})


def _leaves(cls: type[Part]) -> Iterator[type[Any]]:
    for part in cls.__subclasses__():
        if "kind" in part.model_fields:
            yield part
        yield from _leaves(part)


def parts_of(part: Part) -> Iterator[Part]:
    """Every part inside a part, however deep."""
    for name in type(part).model_fields:
        value = getattr(part, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Part):
                yield one
                yield from parts_of(one)
