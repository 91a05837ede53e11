"""The models that a task learns from by itself, or is measured by: asked once, before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from sentei.data.features import Features
from sentei.distill import TeacherCache
from sentei.models.loading import load_model, locate_model, share_padding
from sentei.run.settings import Settings
from sentei.tasks.corpus import Corpus
from sentei.tasks.options import OWN_TEACHERS


class Reference(NamedTuple):
    """A model with what makes its input."""

    model: PreTrainedModel
    processor: Any


@dataclass(frozen=True)
class References:
    """What a run's examples are put to.

    ``train`` and ``evaluation`` are whose answers the examples of each need, None where they need
    none; ``own`` is the model before pruning, by the name that the settings give it.
    """

    corpus: Corpus
    processor: Any
    own: str
    train: str | None = None
    evaluation: str | None = None
    others: dict[str, Reference] | None = None

    def ask(
        self, settings: Settings, model: PreTrainedModel, train: Features, evaluation: Features
    ) -> None:
        """Have features learnt from or measured by these models.

        Args:
            settings: The run's.
            model: The model before pruning.
            train: Features to learn from.
            evaluation: Features to be measured on.
        """
        for name, features in ((self.train, train), (self.evaluation, evaluation)):
            if name is None:
                continue
            reference = (self.others or {}).get(name) or Reference(model, self.processor)
            cache = settings.teacher.cache if features is train else None
            _give(settings, self.corpus, features, self.processor, reference, cache)


def with_reference(settings: Settings) -> Settings:
    """Settings that say by which model they measure, for whoever measures again.

    Raises:
        ValueError: Training is asked for that leaves no teacher.
    """
    task = settings.task
    if not task.refers:
        return settings
    if settings.training.dense_epochs:
        raise ValueError(
            f"--dense-epochs {settings.training.dense_epochs:g}: --kind {task.label} prunes a "
            "trained model, from which it learns; train it before, as with sentence-transformers"
        )
    if settings.teacher.model == "dense":
        raise ValueError(
            "--teacher dense: there is no dense training in this run; name a model, or leave the "
            "option out to learn from the model before pruning"
        )
    return settings.model_copy(update={"task": task.measured_by(_teacher(settings))})


def load_references(settings: Settings, corpus: Corpus, processor: Any) -> References:
    """The models that examples need, but for the one before pruning.

    Raises:
        ValueError: One cannot be loaded, or there is a cache for nobody's answers.
    """
    task, own = settings.task, settings.model
    if not task.refers:
        return References(corpus, processor, own)
    train = _teacher(settings) if task.refers_to(corpus.train, training=True) else None
    measured = task.refers_to(corpus.evaluation, training=False)
    evaluation = task.reference_model if measured else None
    if train is None and settings.teacher.cache:
        raise ValueError(
            f"--teacher-cache {settings.teacher.cache}: this run asks no teacher for embeddings; "
            "leave the option out"
        )
    others = {
        name: load_reference(name, option, settings, corpus)
        for name, option in ((evaluation, "reference"), (train, "teacher"))
        if name is not None and name != own
    }
    return References(corpus, processor, own, train, evaluation, others)


def load_reference(name: str, option: str, settings: Settings, corpus: Corpus) -> Reference:
    """A model that others are compared with.

    Args:
        name: Its name or folder.
        option: The option that named it.
        settings: The run's.
        corpus: Of the task.

    Raises:
        ValueError: It cannot be loaded.
    """
    folder, _ = locate_model(name, option)
    trust: Any = {"trust_remote_code": settings.trust_remote_code}
    model, _ = load_model(folder, corpus.head, option, **trust)
    processor = corpus.load_processor(folder, option, **trust)
    share_padding(model, processor)
    return Reference(model, processor)


def measured_features(settings: Settings, corpus: Corpus, processor: Any) -> Features:
    """Evaluation features, with what another model gives where they are measured by it.

    Raises:
        ValueError: They are, and none is named; or they do not fit the model's input.
    """
    features, task = corpus.evaluation_features(processor), settings.task
    if not task.refers or not task.refers_to(corpus.evaluation, training=False):
        return features
    if task.reference_model is None:
        raise ValueError(
            f"{corpus.evaluation.source}: texts alone are measured by how a model agrees with "
            "another; name that with --reference, or give pairs with scores, or queries with "
            "passages"
        )
    reference = load_reference(task.reference_model, "reference", settings, corpus)
    _give(settings, corpus, features, processor, reference, None)
    return features


def _teacher(settings: Settings) -> str:
    named = settings.teacher.model
    return settings.model if named is None or named in OWN_TEACHERS else named


def _give(
    settings: Settings,
    corpus: Corpus,
    features: Features,
    ours: Any,
    reference: Reference,
    cache: Any,
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reference.model.to(device)  # type: ignore[arg-type]
    targets = corpus.task.embed(
        features,
        reference.model,
        reference.processor,
        settings.training.batch_size,
        TeacherCache(cache) if cache else None,
    )
    corpus.task.take_targets(features, ours, targets)
