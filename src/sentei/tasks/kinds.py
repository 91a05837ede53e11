"""The kinds of task that can be pruned for: one file each, behind one protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sentei.models.demo import DEMO

if TYPE_CHECKING:
    from sentei.run.settings import Settings
from sentei.tasks import catalogue as tasks
from sentei.tasks.answers.task import Answers
from sentei.tasks.classification import Classification
from sentei.tasks.images import Images
from sentei.tasks.language import Language
from sentei.tasks.summaries import Summaries
from sentei.tasks.tagging import TokenTags
from sentei.tasks.task import Kind

__all__ = ["KINDS", "Kind", "foreign", "of"]

KINDS: Final[dict[str, type[Kind[Any]]]] = {
    kind.name: kind for kind in (Classification, TokenTags, Answers, Images, Language, Summaries)
}
"""Every kind by the name that ``--kind`` gives it."""


def of(settings: Settings) -> Kind[Any]:
    """The kind that settings ask for, by name or by their task.

    Raises:
        ValueError: There is none of that name, the task is of another, or a setting is given that
            this kind does not read.
    """
    task = tasks.find(settings.task) if settings.task and settings.task != DEMO else None
    name = settings.kind or (task.kind if task else Classification.name)
    if name not in KINDS:
        raise ValueError(
            f"--kind {name}{tasks.did_you_mean(name, KINDS)} The kinds are {', '.join(KINDS)}."
        )
    if task and task.kind != name:
        raise ValueError(
            f"--kind {name}: the task {task.name} is of the kind {task.kind}; leave --kind out"
        )
    for setting in foreign(KINDS[name]):
        if (value := getattr(settings, setting)) != type(settings).model_fields[setting].default:
            option = ("no-" if value is False else "") + setting.replace("_", "-")
            readers = [kind.name for kind in KINDS.values() if setting in _own(kind)]
            raise ValueError(
                f"--{option}: not read by --kind {name}; it belongs to "
                f"--kind {' or '.join(readers)}"
            )
    kind = KINDS[name](settings)
    kind.check_metric()
    return kind


def foreign(kind: type[Kind[Any]]) -> list[str]:
    """The settings that other kinds read and this one does not."""
    every = dict.fromkeys(setting for one in KINDS.values() for setting in _own(one))
    return [setting for setting in every if setting not in _own(kind)]


def _own(kind: type[Kind[Any]]) -> tuple[str, ...]:
    return (*kind.columns, *kind.options)
