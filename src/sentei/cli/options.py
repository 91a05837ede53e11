"""Command-line options made from a run's settings: declared once, shared by verbs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from sentei.run.options import dashed, flat, names_of, places, settings_from
from sentei.run.settings import Settings
from sentei.tasks.catalogue import DATASETS
from sentei.tasks.source import CorpusSource

MethodOption = Annotated[
    str | None,
    typer.Option(
        help="Pruning method, see `sentei methods`; leap:published has its authors' settings, for "
        "long trainings [default: auto]."
    ),
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

_READ = (
    *(name for name, place in places().items() if place.owner in ("", "task")),
    *("batch_size", "seed"),
)
EVALUATION = tuple(name for name in _READ if not places()[name].option.training)
"""What a finished model is measured with: itself, its task, and how batches are drawn."""

OF_DATA = tuple(name for name in EVALUATION if name not in ("model", "batch_size"))
"""What names the evaluation data of a model that is an argument."""


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of these settings, or of all.

    The verb receives them as one argument ``options``: a dict of those the user typed, so that a
    setting left out takes its default from where it is declared.
    """
    known = places()
    chosen = names or tuple(known)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())
        parameters = [_parameter(name, known[name].info) for name in chosen]

        @functools.wraps(function)
        def run(**arguments: Any) -> None:
            typed = {name: arguments.pop(name) for name in chosen}
            function(options={k: v for k, v in typed.items() if v is not None}, **arguments)

        own = [parameter for parameter in own if parameter.name != "options"]
        run.__signature__ = inspect.Signature([*parameters, *own])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*parameters, *own]}
        return run

    return decorate


def make_settings(
    options: Mapping[str, Any],
    method: str | None = None,
    sparsity: float | None = None,
    recipe: Path | None = None,
    overrides: list[str] | None = None,
    pattern: str | None = None,
    *,
    freeze_masks: bool = False,
) -> Settings:
    """The settings of a run.

    Raises:
        ValueError: A value does not fit, or something necessary is missing; names the option.
    """
    from sentei import serialization
    from sentei.run.recipes import make_recipe

    if "model" not in options:
        raise ValueError("--model is missing: a name on the hub, a folder, or demo")
    if freeze_masks:
        for option, value in (("method", method), ("recipe", recipe), ("pattern", pattern)):
            if value:
                raise ValueError(
                    f"--freeze-masks keeps the zeros of --model as they are: leave out --{option} "
                    f"{value}, or the flag"
                )
        method = "frozen_mask"
    teacher = "teacher" in options
    built = make_recipe(method, sparsity, recipe, overrides or [], pattern=pattern, teacher=teacher)
    return settings_from(options, serialization.to_dict(built))


def of_run(run: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings for evaluating, but for those of data that typed ones take the place of.

    Args:
        run: Its ``run.yaml``.
        options: What was typed.

    Raises:
        ValueError: The file is not the settings of a run.
    """
    settings = flat(Settings.read(run).model_dump())
    del settings["trust_remote_code"]  # the folder may be anybody's: whoever runs code says so
    sources = names_of(CorpusSource)
    typed = [sources.index(name) for name in options if name in sources]
    stale = {*sources[min(typed) :]} if typed else set[str]()
    if "task" in options or options.get("kind", settings["kind"]) != settings["kind"]:
        columns = (known.options for known in DATASETS.values())
        stale |= {"kind", "metric"}.union(*columns)  # which another task has of its own
    return {name: settings[name] for name in EVALUATION if name in settings.keys() - stale}


def settings_of_model(model: Path, run: Path, options: Mapping[str, Any]) -> Settings | None:
    """Those of a model's evaluation data, of its run or as typed; None where neither names any.

    Args:
        model: Its folder.
        run: The ``run.yaml`` of its run, if it is of one.
        options: What was typed.

    Raises:
        ValueError: A value does not fit, or the file is not the settings of a run.
    """
    begun = of_run(run, options) if run.is_file() else {}
    if not begun and not options.keys() - {"trust_remote_code"}:
        return None
    return make_settings({**begun, **options, "model": str(model)})


def _parameter(name: str, info: FieldInfo) -> inspect.Parameter:
    kind = _plain(info.annotation)
    flag = dashed(name)
    flags = [f"{flag}/{dashed(f'no_{name}')}" if kind is bool else flag]
    text = info.description or ""
    if not info.is_required() and info.default is not None and "default" not in text:
        shown = str(info.default).lower() if kind is bool else info.default
        text = f"{text if text.endswith('...') else text.removesuffix('.')} [default: {shown}]."
    option = typer.Option(*flags, help=text, show_default=False)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )


def _plain(annotation: Any) -> Any:
    """What typer makes of an option's text: the type without None and metadata.

    A choice is a text: the declaration says which there are, with the value in its error.
    """
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return str
    if isinstance(annotation, type):
        return annotation
    [inner] = (argument for argument in get_args(annotation) if argument is not type(None))
    return _plain(inner)
