"""Every setting under the one flat name that the command and plans give it, and its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from sentei.messages import cut, did_you_mean, short
from sentei.parts.part import Part
from sentei.run.settings import Settings
from sentei.tasks import kinds
from sentei.tasks.options import WHOLE_PATHS, Option, holds_path
from sentei.tasks.task import Task

P = TypeVar("P", bound=Part)
T = TypeVar("T", bound=Task[Any])


class OptionError(ValueError):
    """An option that does not fit.

    ``name`` is its flat name, ``value`` what was given; both are empty where several options do not
    fit each other.
    """

    def __init__(self, reason: str, name: str = "", value: object = "") -> None:
        super().__init__(f"{dashed(name)} {cut(str(value), 80)}: {reason}" if name else reason)
        self.name = name
        self.value = value
        self.reason = reason

    @property
    def as_setting(self) -> str:
        """The same in the words of a file: ``name=value: reason``."""
        return f"{self.name}={short(self.value, 80)}: {self.reason}" if self.name else self.reason


@dataclass(frozen=True)
class Place:
    """Where a setting stands: in ``owner``, a field of the settings, or empty at their top.

    ``tasks`` are the kinds of task that read it, if a task does.
    """

    owner: str
    field: str
    info: FieldInfo
    tasks: tuple[str, ...] = ()

    @property
    def option(self) -> Option:
        """What the declaration says of it to the command."""
        return next((one for one in self.info.metadata if isinstance(one, Option)), Option())


def places() -> dict[str, Place]:
    """Every setting but the recipe by its flat name, as the declarations say."""
    return dict(_places())


def _places() -> Iterator[tuple[str, Place]]:
    for owner, info in Settings.model_fields.items():
        declared = info.annotation
        if declared is Task:
            yield from _of_tasks(owner)
        elif isinstance(declared, type) and issubclass(declared, Part):
            yield from _of_part(owner, declared)
        elif owner != "recipe":
            yield owner, Place("", owner, info)


def _of_tasks(owner: str) -> Iterator[tuple[str, Place]]:
    tasks = kinds.known()
    *others, last = tasks
    text = (
        f"Kind of task: {', '.join(others)} or {last} "
        "[default: that of --task, else classification]."
    )
    kind = FieldInfo(annotation=str, default=None, description=text)
    yield "kind", Place(owner, "kind", kind, tuple(tasks))
    fields = {name: place for task in tasks.values() for name, place in _of_part(owner, task)}
    for name, place in fields.items():
        readers = tuple(kind for kind, task in tasks.items() if place.field in task.model_fields)
        if name != "kind":
            yield name, Place(owner, place.field, place.info, readers)


def _of_part(owner: str, part: type[Part]) -> Iterator[tuple[str, Place]]:
    for field, info in part.model_fields.items():
        place = Place(owner, field, info)
        yield place.option.name or field, place


def names_of(part: type[Part]) -> tuple[str, ...]:
    """The flat names of a part's own fields."""
    return tuple(name for name, _ in _of_part("", part))


def flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that were dumped, all but the recipe, by flat name."""
    values = {}
    for name, place in places().items():
        inside = data[place.owner] if place.owner else data
        if place.field in inside:
            values[name] = inside[place.field]
    return values


def settings_from(options: Mapping[str, Any], recipe: Mapping[str, Any]) -> Settings:
    """The settings of flat options and a recipe.

    Args:
        options: By flat name; what is left out has its default.
        recipe: As plain data.

    Raises:
        OptionError: One is unknown, its value does not fit, or the task does not read it.
    """
    known = places()
    data: dict[str, Any] = {"task": {}, "recipe": dict(recipe)}
    for name, value in _read_by_task(options, known).items():
        place = known[name]
        (data.setdefault(place.owner, {}) if place.owner else data)[place.field] = value
    return _checked(Settings, data)


def task_from(task: type[T], options: Mapping[str, Any]) -> T:
    """A task of flat options, where no run is asked for.

    Raises:
        OptionError: A value does not fit.
    """
    known = places()
    return _checked(task, {known[name].field: value for name, value in options.items()}, "task")


def written(name: str, value: Any) -> Any:
    """The value of an option as ``run.yaml`` holds it."""
    adapter: TypeAdapter[Any] = TypeAdapter(places()[name].info.rebuild_annotation())
    with suppress(ValidationError):  # then it is not what the run was begun with
        value = adapter.validate_python(value)
    return adapter.dump_python(value, mode="json", context=WHOLE_PATHS)


def is_path(name: str) -> bool:
    """Whether a setting, by its flat name, is the place of a file or folder, or may be one."""
    return holds_path(places()[name].info.rebuild_annotation())


def dashed(name: str) -> str:
    """A flat name as the command spells it."""
    return f"--{name.replace('_', '-')}"


def _read_by_task(options: Mapping[str, Any], known: Mapping[str, Place]) -> dict[str, Any]:
    """The options without those that only other tasks read, which must have their defaults."""
    kind = _kind(options)
    kept = {}
    for name, value in options.items():
        if name not in known:
            raise OptionError(f"there is no setting {short(name)}{did_you_mean(name, known)}")
        place = known[name]
        if not place.tasks or kind in place.tasks:
            kept[name] = value
        elif value != place.info.default:
            option = dashed(f"no_{name}" if value is False else name)
            raise OptionError(
                f"{option}: not read by --kind {kind}; it belongs to "
                f"--kind {' or '.join(place.tasks)}"
            )
    return kept


def _kind(options: Mapping[str, Any]) -> str:
    tasks = kinds.known()
    try:
        kind = str(options.get("kind") or Task.usual_kind(options.get("task")))
    except ValueError as error:
        raise OptionError(str(error)) from None
    if kind not in tasks:
        hint = did_you_mean(kind, tasks) or "."
        raise OptionError(f"--kind {cut(kind, 40)}{hint} The kinds are {', '.join(tasks)}.")
    return kind


def _checked(part: type[P], data: Mapping[str, Any], *owner: str) -> P:
    """A part of plain data; the first of pydantic's complaints by its option."""
    try:
        return part.model_validate(data)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
    if cause := detail.get("ctx", {}).get("error"):
        raise OptionError(str(cause))
    path = (*owner, *map(str, detail["loc"]))
    for name, place in places().items():
        if path == tuple(filter(None, (place.owner, place.field))):
            raise OptionError(detail["msg"].removeprefix("Input "), name, detail["input"])
    raise OptionError(f"{'.'.join(path)}: {detail['msg']}")
