"""A recipe as plain data: a dict, YAML, and single values by path.

One declaration has four spellings that mean the same: Python, a dict, YAML, and ``path=value``
overrides. Dumps are complete, defaults included, so that a default changed later never rewrites
an old run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from sentei import messages, methods, untrusted
from sentei.messages import cut, did_you_mean, short
from sentei.parts.part import Part
from sentei.recipe import Recipe


def load(source: Mapping[str, Any] | str | Path) -> Recipe:
    """Make a recipe from a mapping, YAML text, or the path of a YAML file.

    A single line that ends in .yaml or .yml is a path.

    Raises:
        ValueError: The file cannot be read, or a key or value is wrong; names each one's path,
            value and reason.
    """
    origin = "recipe"
    methods.known()  # makes their parts known
    if isinstance(source, str) and "\n" not in source and source.endswith((".yaml", ".yml")):
        source = Path(source)
    if isinstance(source, Path):
        origin, source = str(source), untrusted.read_text(source)
    if isinstance(source, str):
        source = untrusted.parse_yaml(source, origin)
    if not isinstance(source, Mapping):
        raise ValueError(f"{origin}: expected keys and values, found {type(source).__name__}")
    try:
        return Recipe.model_validate(dict(source))
    except ValidationError as error:
        raise ValueError(f"{origin}: {explain(error)}") from None


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, every default included; :func:`load` takes it back."""
    plain: dict[str, Any] = _kind_first(recipe.model_dump(mode="json", serialize_as_any=True))
    return plain


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every default included: ``load(dump(r)) == r``."""
    return untrusted.to_yaml(to_dict(recipe))


def override(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """Change single values: ``override(recipe, ["score.beta1=0.9", "budget=uniform"])``.

    Values are YAML. A part given by its kind alone gets that kind's defaults. Settings are made one
    after the other; two that fit only together may stand in any order.

    Raises:
        ValueError: A setting is not ``path=value``, its path does not exist, or its value does
            not fit.
    """
    data, misfit = to_dict(recipe), None
    for setting in settings:
        try:
            _set(data, setting)
        except ValueError as error:
            raise misfit or error from None
        try:
            recipe = load(data)
        except ValueError as error:
            misfit = misfit or error
            continue
        data, misfit = to_dict(recipe), None  # a part of another kind has other settings from here
    if misfit:
        raise misfit
    return recipe


def _set(data: dict[str, Any], setting: str) -> None:
    """Change one value of a recipe's data.

    Raises:
        ValueError: The setting is not ``path=value``, or its path does not exist.
    """
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    option = f"--set {cut(setting, 200)}"
    if not equals or not all(keys):
        raise ValueError(f"{option}: expected path=value, such as score.beta1=0.9")
    place: Any = data
    for depth, key in enumerate(keys):
        entries = _entries(place)
        if place is None:
            parent = ".".join(keys[:depth])
            raise ValueError(
                f"{option}: the recipe has no {parent}; ask for one with its defaults "
                f"first: --set {parent}={{}}"
            )
        if key not in entries:
            raise ValueError(
                f"{option}: no setting {short('.'.join(keys[: depth + 1]), 80)}"
                + did_you_mean(key, entries)
            )
        if depth < len(keys) - 1:
            place = entries[key]
    value = untrusted.parse_yaml(text, option)
    if keys[-1] == "kind" and value != place["kind"]:
        place.clear()  # another kind has other fields: start from its defaults
    place[int(keys[-1]) if isinstance(place, list) else keys[-1]] = value


def _entries(place: Any) -> dict[str, Any]:
    """What can be set below a place: keys of a mapping, numbers of a list's items."""
    if isinstance(place, list):
        return {str(number): item for number, item in enumerate(place)}
    return place if isinstance(place, dict) else {}


def _kind_first(data: Any) -> Any:
    """Each part's kind before its numbers, for the reader of a dump."""
    if isinstance(data, list):
        return [_kind_first(item) for item in data]
    if not isinstance(data, dict):
        return data
    ordered = sorted(data.items(), key=lambda item: item[0] != "kind")
    return {key: _kind_first(value) for key, value in ordered}


def explain(error: ValidationError) -> str:
    """What is wrong with a declaration, in one line: path, value, reason of each mistake."""
    return messages.explain(error, lambda path: _settings())


def _settings() -> list[str]:
    """The names of all settings of a recipe and of the parts that it may have."""
    parts: list[type[Part]] = [Recipe]
    for part in parts:
        inside = [one for info in part.model_fields.values() for one in _parts(info.annotation)]
        parts.extend(one for one in (*part.__subclasses__(), *inside) if one not in parts)
    return sorted({name for part in parts for name in part.model_fields})


def _parts(annotation: Any) -> Iterator[type[Part]]:
    """The parts that a field's type names."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts(argument)
