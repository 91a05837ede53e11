"""Command-line options made from the run's settings: declared once, shared by verbs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from sentei import serialization
from sentei.run.settings import Settings, make_recipe

MethodOption = Annotated[
    str | None, typer.Option(help="Pruning method, see `sentei methods` [default: auto].")
]
SparsityOption = Annotated[
    float | None,
    typer.Option(help="Fraction of the prunable weights to remove, in [0, 1) [default: 0.8]."),
]
PatternOption = Annotated[
    str | None,
    typer.Option(
        help="What is pruned together: unstructured, 2:4, 32x32, row, column, head, neuron, or "
        "several joined by + [default: unstructured]."
    ),
]
FreezeOption = Annotated[
    bool,
    typer.Option(
        "--freeze-masks",
        help="Keep the zeros of a --model that is sparse already and prune nothing more: short "
        "for --method frozen_mask.",
    ),
]
RecipeOption = Annotated[Path | None, typer.Option(help="Recipe file (YAML) instead of a method.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value of the recipe: --set score.beta1=0.9."),
]


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of these settings (all but the recipe if none is named).

    The verb receives them as one argument ``given``: a dict of those the user typed, so that a
    setting left out takes its default from :class:`~sentei.run.settings.Settings`.
    """
    chosen = names or tuple(name for name in Settings.model_fields if name != "recipe")

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())
        options = [_parameter(name, Settings.model_fields[name]) for name in chosen]

        @functools.wraps(function)
        def run(**arguments: Any) -> None:
            typed = {name: arguments.pop(name) for name in chosen}
            function(given={k: v for k, v in typed.items() if v is not None}, **arguments)

        own = [parameter for parameter in own if parameter.name != "given"]
        run.__signature__ = inspect.Signature([*options, *own])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*options, *own]}
        return run

    return decorate


def make_settings(
    given: dict[str, Any],
    method: str | None,
    sparsity: float | None,
    recipe: Path | None,
    overrides: list[str] | None,
    pattern: str | None = None,
    *,
    freeze_masks: bool = False,
) -> Settings:
    """The settings of a run.

    Raises:
        ValueError: A value does not fit, or something necessary is missing; names the option.
    """
    if "model" not in given:
        raise ValueError("--model is missing: a name on the hub, a folder, or demo")
    if freeze_masks:
        for option, value in (("method", method), ("recipe", recipe), ("pattern", pattern)):
            if value:
                raise ValueError(
                    f"--freeze-masks keeps the zeros of --model as they are: leave out --{option} "
                    f"{value}, or the flag"
                )
        method = "frozen_mask"
    teacher = "teacher" in given
    built = make_recipe(method, sparsity, recipe, overrides or [], pattern=pattern, teacher=teacher)
    try:
        return Settings(**given, recipe=serialization.to_dict(built))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        reason = first["msg"].removeprefix("Input ")
        raise ValueError(f"{option} {first['input']}: {reason}") from None


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    kind = field.annotation
    if kind is bool:
        flags = [f"--{_dashed(name)}/--no-{_dashed(name)}"]
    else:
        flags = [f"--{_dashed(name)}"]
        if get_origin(kind) is not None and all(isinstance(a, str) for a in get_args(kind)):
            kind = str  # a choice: Settings says which, with the value in its error
    text = field.description or ""
    if not field.is_required() and field.default is not None and "default" not in text:
        shown = str(field.default).lower() if kind is bool else field.default
        text = f"{text if text.endswith('...') else text.removesuffix('.')} [default: {shown}]."
    option = typer.Option(*flags, help=text, show_default=False)
    optional = kind | None if kind is not None else kind
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[optional, option]
    )


def _dashed(name: str) -> str:
    return name.replace("_", "-")
