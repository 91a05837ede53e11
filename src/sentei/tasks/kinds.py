"""The kinds of task: to import this makes each known by the name that ``--kind`` gives it."""

from __future__ import annotations

from typing import Any, Final

from sentei.tasks.answers.task import QuestionAnswering
from sentei.tasks.classification import Classification
from sentei.tasks.embeddings.task import Embeddings
from sentei.tasks.images import Images
from sentei.tasks.language import Language
from sentei.tasks.masked_text import MaskedText
from sentei.tasks.summaries import Summaries
from sentei.tasks.tagging import Tagging
from sentei.tasks.task import Task

OURS: Final[tuple[type[Task[Any]], ...]] = (
    Classification,
    Tagging,
    QuestionAnswering,
    Images,
    Language,
    MaskedText,
    Summaries,
    Embeddings,
)
"""In the order in which people are told of them."""


def known() -> dict[str, type[Task[Any]]]:
    """Every task by its kind: ours, then those that other modules have added."""
    ours = {str(task.model_fields["kind"].default): task for task in OURS}
    return ours | Task.kinds()
