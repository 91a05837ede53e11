"""The recipe that a command line asks for: a method or a file, then single values."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from sentei import methods, serialization
from sentei.messages import cut, short
from sentei.parts.distillation import Distillation
from sentei.recipe import Recipe


def make_recipe(
    method: str | None,
    sparsity: float | None,
    recipe_file: Path | None,
    overrides: list[str],
    *,
    pattern: str | None = None,
    teacher: bool = False,
) -> Recipe:
    """A method's recipe, or a file's, with some values changed.

    Args:
        method: Its name [default: auto]; ``NAME:published`` has its authors' settings.
        sparsity: The final one.
        recipe_file: YAML, instead of a method.
        overrides: ``path=value``, applied last.
        pattern: What is pruned together.
        teacher: Whether one was named; a recipe without a teacher's loss then gets the default.

    Raises:
        ValueError: Both or neither source is given, or a value does not fit.
    """
    if recipe_file and method:
        raise ValueError("--recipe and --method both name a method: give one of them")
    try:
        if recipe_file:
            recipe = serialization.load(recipe_file)
        else:
            recipe = _of_method(method or "auto", sparsity)
    except ValidationError as error:
        raise ValueError(serialization.explain(error)) from None
    if pattern:
        recipe = serialization.load({**serialization.to_dict(recipe), "pattern": pattern})
    if teacher and recipe.distill is None:
        recipe = recipe.model_copy(update={"distill": Distillation()})
    if recipe_file and sparsity is not None:
        overrides = [f"schedule.sparsity={sparsity}", *overrides]
    return serialization.override(recipe, overrides)


def _of_method(method: str, sparsity: float | None) -> Recipe:
    name, colon, variant = str(method).partition(":")  # a plan may say anything
    if not colon:
        chosen = methods.find(name)
        return chosen.build() if sparsity is None else chosen.build(sparsity)
    if variant != "published":
        raise ValueError(
            f"method {short(method)}: say {short(name)}, or {cut(name, 60)}:published for its "
            "authors' settings"
        )
    return methods.published(name, sparsity)
