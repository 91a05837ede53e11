"""The examples of a run, beside the kind of task that says what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sentei.data.features import Features
from sentei.models.demo import DEMO
from sentei.models.loading import Head, load_processor
from sentei.tasks import kinds
from sentei.tasks.kinds import Kind
from sentei.tasks.task import Examples

if TYPE_CHECKING:
    from sentei.run.settings import Settings


@dataclass(frozen=True)
class Corpus:
    """Training and evaluation examples, and the kind of task that says what becomes of them."""

    kind: Kind[Any]
    train: Examples
    evaluation: Examples
    task: str

    @property
    def problem(self) -> str:
        """What reports call the kind."""
        return self.kind.problem

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured, the headline first."""
        return self.kind.metrics

    @property
    def head(self) -> Head:
        """What a model for these examples ends in."""
        kind = self.kind
        return Head(kind.model_class, kind.head(self.train), f"--kind {kind.name}")

    def load_processor(self, folder: str, option: str = "model") -> Any:
        """What makes a model's input for these examples.

        Raises:
            ValueError: It cannot be loaded.
        """
        return load_processor(self.kind.load_processor, folder, self.kind.processor_name, option)

    def evaluation_features(self, processor: Any) -> Features:
        """The evaluation examples made ready for a model.

        Raises:
            ValueError: They do not fit the model's input.
        """
        return self.kind.features(self.evaluation, processor, training=False)


def load_corpus(settings: Settings) -> Corpus:
    """The data that settings name, from files, the hub or the demo package.

    Raises:
        ValueError: No source or an unusable one.
    """
    kind = kinds.of(settings)
    train, evaluation = kind.load()
    if settings.holdout:
        train, evaluation = kind.split(train, settings.holdout, settings.seed)
    return Corpus(kind, train, evaluation, _task_name(settings))


def load_evaluation(settings: Settings, label_names: tuple[str, ...]) -> Corpus:
    """The evaluation data alone, its labels as the model's.

    Raises:
        ValueError: No source or an unusable one, or a label that the model does not know.
    """
    kind = kinds.of(settings)
    kind.check_packages()
    if settings.holdout:  # what the run set aside
        whole, _ = kind.load()
        examples = kind.split(whole, settings.holdout, settings.seed)[1].relabel(label_names)
    else:
        examples = kind.load_evaluation(label_names)
    return Corpus(kind, examples, examples, _task_name(settings))


def _task_name(settings: Settings) -> str:
    if settings.task:
        return "BBC news" if settings.task == DEMO else settings.task
    source = settings.train or settings.eval
    return source.stem if source else ""
