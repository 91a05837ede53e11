"""Who teaches: chosen before anything is loaded, then loaded, then put into the loss.

settings, recipe ──► Choice ──► with the data ──► with the model ──► Teacher ──► Distiller
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from sentei.data.features import Features
from sentei.distill import Distiller, Match, TeacherCache
from sentei.distill.cache import expected_bytes
from sentei.distill.layers import match
from sentei.messages import listing
from sentei.models.classes import placeholders, same_names
from sentei.models.folder import is_shrunk
from sentei.models.loading import (
    load_model,
    locate_model,
    parameter_bytes,
    saved_labels,
    share_padding,
)
from sentei.parts.distillation import Distillation
from sentei.recipe import Recipe
from sentei.run.settings import Settings
from sentei.tasks.corpus import Corpus
from sentei.tasks.options import OWN_TEACHERS


@dataclass(frozen=True)
class Choice:
    """Who is to teach, before anybody is loaded.

    ``name`` is ``dense``, ``self`` or what the user named; None is nobody, and ``untaught`` then
    says why a recipe that can do without its teacher has none.
    """

    name: str | None = None
    untaught: str = ""

    @property
    def model(self) -> str | None:
        """The model that the user named."""
        return None if self.name in OWN_TEACHERS else self.name


@dataclass(frozen=True)
class Teacher:
    """Who the student learns from.

    ``name`` is ``dense``, ``self`` or what the user called it; ``model`` is None for the first
    two, which are made when the run begins. ``cache`` is the folder of its answers, ``bytes`` are
    its weights', ``cache_bytes`` those of all its answers on disk, 0 without a cache.
    """

    name: str
    model: PreTrainedModel | None
    distillation: Distillation
    match: Match
    notes: tuple[str, ...]
    bytes: int
    cache: Path | None
    cache_bytes: int

    def teach(
        self, model: PreTrainedModel, fresh: Callable[[], PreTrainedModel] | None = None
    ) -> tuple[PreTrainedModel, Distiller]:
        """The student, and what puts its teacher into its loss.

        Args:
            model: The model before pruning.
            fresh: After dense training, makes the model as it was before that.
        """
        if self.model is not None:
            student, teacher = model, self.model
        elif fresh is None or self.distillation.student == "teacher":
            student, teacher = model, copy.deepcopy(model)
        else:
            student, teacher = fresh(), model
        cache = TeacherCache(self.cache) if self.cache else None
        return student, Distiller(student, teacher, self.distillation, cache=cache)


def choose_teacher(settings: Settings, recipe: Recipe) -> Choice:
    """Who teaches, as far as settings and recipe say.

    Raises:
        ValueError: A teacher is named that the recipe does not ask or that will not be there, or
            one is required where none can teach.
    """
    teacher, cache, task = settings.teacher.model, settings.teacher.cache, settings.task
    if recipe.distill is None and task.refers:
        return Choice()  # the task's own loss learns from the teacher
    if recipe.distill is None:
        for option, value in (("teacher", teacher), ("teacher-cache", cache)):
            if value:
                raise ValueError(
                    f"--{option} {value}: the recipe has no `distill`, which says what a teacher "
                    "is asked for"
                )
        return Choice()
    dense = settings.training.dense_epochs > 0
    if teacher == "dense" and not dense:
        raise ValueError(
            "--teacher dense: there is no dense training in this run; give it --dense-epochs, or "
            "name a fine-tuned model"
        )
    if task.cannot_learn:
        if _is_optional(settings, recipe):
            return Choice(None, f"--kind {task.label} learns from none: {task.cannot_learn}")
        raise ValueError(
            f"--kind {task.label} learns from no teacher: {task.cannot_learn}; choose a recipe "
            "without `distill`, or leave it out with --set distill=null"
        )
    if cache and not task.caches:
        raise ValueError(
            f"--teacher-cache {cache}: answers are kept for whole texts, not for --kind "
            f"{task.label}; leave the option out"
        )
    if teacher in (None, "self"):  # after dense training that is the model before pruning
        return Choice("dense" if dense else "self")
    return Choice(teacher)


def name_teacher(teacher: str | None, recipe: Recipe, dense: str | None) -> str | None:
    """Who a run is to be told to learn from, where a dense model has been trained for it.

    A recipe that can do without is told nobody: its run learns from the model that it starts from,
    which is that same one, or says why it does not.

    Args:
        teacher: As ``--teacher``, if given.
        recipe: The run's.
        dense: The dense model, if there is one.
    """
    distill = recipe.distill
    if distill is None:
        return None
    if teacher is None and not distill.required and distill.student == "teacher":
        return None
    return dense if dense and teacher in (None, *OWN_TEACHERS) else teacher


def check_folders(choice: Choice, recipe: Recipe, folder: str) -> None:
    """Refuse models whose attention heads a recipe would compare, and cannot.

    Raises:
        ValueError: A model was shrunk; or the teacher's folder holds none.
    """
    if choice.name is None or recipe.distill is None:
        return
    places = {"model": folder}
    if choice.model:
        places["teacher"] = locate_model(choice.model, "teacher")[0]
    for option, place in places.items():
        if recipe.distill.attention and is_shrunk(place):
            raise ValueError(
                f"--{option} {place}: its blocks may have any number of attention heads, and the "
                "recipe compares those of student and teacher one by one; use --set "
                "distill.attention=0"
            )


def number_classes(
    corpus: Corpus, folder: str, choice: Choice, *, trust_remote_code: bool = False
) -> tuple[Corpus, tuple[str, ...]]:
    """The corpus with its classes numbered as a model numbers them that is trained on them.

    A teacher that was named must know every class; the model being pruned decides only where it
    has the very same names. Also notes on what is taken for granted.
    """
    labels = corpus.train.label_names
    if not labels:
        return corpus, ()
    option, place = "model", folder
    if choice.model:
        option, place = "teacher", locate_model(choice.model, "teacher")[0]
    names = saved_labels(place, option, trust_remote_code=trust_remote_code)
    if names == placeholders(len(names)) or names == labels:
        return corpus, assumed_names(choice.model, names, labels) if choice.model else ()
    if not choice.model and not same_names(names, labels):
        return corpus, ()
    train, evaluation = corpus.train.relabel(names), corpus.evaluation.relabel(names)
    return replace(corpus, train=train, evaluation=evaluation), ()


def assumed_names(model: str, names: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """A note on a model that does not name its classes, where the data's are not their numbers."""
    unnamed = tuple(names) == placeholders(len(labels))
    if not unnamed or tuple(labels) in (tuple(names), tuple(map(str, range(len(labels))))):
        return ()
    return (f"{model} does not name its classes: taken to be {listing(labels)}, in this order",)


def unless_labels_suffice(
    choice: Choice, settings: Settings, recipe: Recipe, corpus: Corpus
) -> Choice:
    """Nobody, where the task's labels are numbers, which the recipe learns without a teacher.

    Raises:
        ValueError: They are, and a teacher is named, or the recipe requires one.
    """
    distill = recipe.distill
    if choice.name is None or distill is None:
        return choice
    if corpus.problem != "regression" or not distill.labels_only:
        return choice
    teacher = settings.teacher.model
    if teacher or distill.required:
        reason = f"--teacher {teacher}" if teacher else "distill.required=true"
        fix = "leave the option out" if teacher else "use distill.required=false"
        raise ValueError(
            f"{reason}: the recipe learns numbers from the labels alone; {fix}, or add --set "
            "distill.regression=teacher"
        )
    return Choice(None, "the recipe learns numbers from the labels alone")


def unless_untrained(
    choice: Choice,
    settings: Settings,
    recipe: Recipe,
    names: Sequence[str],
    labels: Sequence[str],
) -> Choice:
    """Nobody, where the model that would teach itself has no head for the task.

    Args:
        choice: Who would teach.
        settings: The run's.
        recipe: The run's.
        names: What the model calls its classes.
        labels: What the data call them.

    Raises:
        ValueError: A teacher is required.
    """
    if choice.name != "self":
        return choice
    reason = f"--model {settings.model} {_no_head(names, labels)}"
    if _is_optional(settings, recipe):
        fix = "--dense-epochs 3 would make one first, or --teacher name one"
        return Choice(None, f"{reason}; {fix}")
    raise ValueError(
        f"the recipe learns from a teacher, and there is none: {reason}. Fine-tune it first with "
        "--dense-epochs 3, or name a fine-tuned model with --teacher"
    )


def load_teacher(
    choice: Choice,
    settings: Settings,
    recipe: Recipe,
    corpus: Corpus,
    student: PreTrainedModel,
    processor: Any,
    train: Features,
) -> Teacher | None:
    """The teacher that was chosen, if any, with its layers beside the student's.

    Raises:
        ValueError: It cannot be loaded, has no head for the task or reads other input than the
            student; or there is a cache for nobody's answers.
    """
    distill = recipe.distill
    cache = None if settings.task.refers else settings.teacher.cache
    if choice.name is None or distill is None:
        if choice.untaught and cache:
            raise ValueError(f"--teacher-cache {cache}: this run has no teacher; {choice.untaught}")
        return None
    model = _load(choice.model, settings, corpus, processor) if choice.model else None
    if model is not None:
        try:
            corpus.task.check_model(model, train)
        except ValueError as error:
            raise ValueError(f"--teacher {choice.model}: {error}") from None
    like = student if model is None else model
    layers = match(student, like, distill)
    notes, cached = layers.notes, 0
    if cache:
        cached = cache_bytes(layers, like, train)
        notes += (
            f"the teacher's answers to {len(train):,} texts are kept in {cache}: "
            f"{cached / 1e6:,.1f} MB when all are there",
        )
    return Teacher(
        name=choice.name,
        model=model,
        distillation=distill,
        match=layers,
        notes=notes,
        bytes=parameter_bytes(like),
        cache=cache,
        cache_bytes=cached,
    )


def cache_bytes(layers: Match, teacher: PreTrainedModel, train: Features) -> int:
    """Bytes of a teacher's answers to all training texts."""
    config: Any = teacher.config
    assert train.lengths is not None
    distill, depth = layers.distillation, len(set(layers.layers))
    return expected_bytes(
        train.lengths,
        labels=config.num_labels,
        hidden=(depth + 1, config.hidden_size) if distill.hidden else (0, 0),
        attention=(depth, config.num_attention_heads) if distill.attention else (0, 0),
    )


def _load(name: str, settings: Settings, corpus: Corpus, processor: Any) -> PreTrainedModel:
    folder, _ = locate_model(name, "teacher")
    trust: Any = {"trust_remote_code": settings.trust_remote_code}
    model, trained = load_model(folder, corpus.head, "teacher", **trust)
    if not trained:
        raise ValueError(
            f"--teacher {name}: it has no head trained for this task; fine-tune it first, or "
            "let --dense-epochs make a teacher"
        )
    own = corpus.load_processor(folder, "teacher", **trust)
    if not corpus.task.same_input(processor, own):
        raise ValueError(
            f"--teacher {name}: it reads other tokens than --model {settings.model}, and both are "
            "given the same ones; choose a teacher with the model's tokenizer"
        )
    share_padding(model, own)
    return model


def _is_optional(settings: Settings, recipe: Recipe) -> bool:
    """Whether the run can do without a teacher."""
    return recipe.distill is not None and not (recipe.distill.required or settings.teacher.model)


def _no_head(names: Sequence[str], labels: Sequence[str]) -> str:
    """Why a model that calls its classes ``names`` has no head for those of the data."""
    unnamed = tuple(names) == placeholders(len(names))
    if unnamed or len(names) != len(labels) or same_names(names, labels):
        return "has no head trained for this task"
    return (
        f"has the classes {listing(names)}, and the data have {listing(labels)}: if these are the "
        "same, write the model's names into the data, or the data's into id2label and label2id of "
        "the model's config.json"
    )
