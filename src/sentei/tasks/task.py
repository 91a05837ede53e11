"""What is learnt: one declaration, with its own options; training and reports know only this.

options ──► examples ──► features ──► batches ──► predictions ──► metrics
            load()       features()   collator()  predict()       metrics()

To declare a task imports neither torch nor transformers, which take seconds: what does its work is
imported where the work is done.
"""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

from pydantic import BaseModel, model_validator

from sentei.messages import cut, did_you_mean
from sentei.tasks import catalogue
from sentei.tasks.examples import Examples
from sentei.tasks.referring import Referring

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sentei.data.features import Features
    from sentei.tasks.referring import Batch as Batch

Collator = Callable[[list[dict[str, Any]]], Mapping[str, Any]]

EVAL_FRACTION: Final = 0.1
"""Of the training data, set aside where there is no evaluation data."""


@dataclass(frozen=True)
class Prediction:
    """A model's output on a batch.

    ``loss`` is a mean over ``labels`` labels; ``values`` is what the task needs for its metrics.
    """

    loss: float
    labels: int
    values: Any


def mean_loss(predictions: Sequence[Prediction]) -> float:
    """Of all labels."""
    labels = sum(one.labels for one in predictions)
    return sum(one.loss * one.labels for one in predictions) / labels


E = TypeVar("E", bound=Examples)


class Task(Referring, Generic[E]):
    """What a model learns; its fields are options of the command.

    A subclass with a ``kind`` is a task that ``--kind`` names; one defined elsewhere is known as
    soon as its module is imported.
    """

    axis: ClassVar[str] = "task"

    metric: str | None = None
    """Headline metric, such as accuracy, f1, matthews, spearman, exact_match, perplexity or rougeL
    [default: by task]."""

    title: ClassVar[str]
    """What reports call it."""

    auto_class: ClassVar[str]
    """Name of the class of transformers that gives a checkpoint its head."""

    pipeline_tag: ClassVar[str] = ""
    """What the hub calls it; empty where it has no word for it."""

    processor_name: ClassVar[str]
    """What makes its model's input."""

    packages: ClassVar[Mapping[str, str]] = {}
    """Modules it cannot do without, and the extra that brings each."""

    cannot_learn: ClassVar[str] = ""
    """Why its models cannot learn from a teacher; empty where they can."""

    new_head: ClassVar[str] = ""
    """What to tell of a model that brings no head for it; empty where that is usual."""

    one_each: ClassVar[bool] = True
    """Whether every example makes one feature, so that the steps are known before any is made."""

    any_order: ClassVar[bool] = False
    """Whether metrics do not depend on the order in which features are shown."""

    one_pass: ClassVar[bool] = False
    """Whether its metrics follow from forward passes, which any engine can do."""

    caches: ClassVar[bool] = False
    """Whether a teacher's answers can be kept on disk."""

    def __class_getitem__(cls, examples: Any) -> type[BaseModel]:
        """One class, whatever the examples: their type is for the type checker alone."""
        return cls

    # --------------------------------------------------------------------------- options

    @classmethod
    def spelled_out(cls, value: Any) -> Any:
        """A mapping without a kind is of the kind of its dataset, or text classification."""
        if isinstance(value, Mapping) and not value.get("kind"):
            return {**value, "kind": cls.usual_kind(value.get("dataset"))}
        return value

    @staticmethod
    def usual_kind(dataset: str | None) -> str:
        """The kind of task where only a dataset is named, or nothing.

        Raises:
            ValueError: There is no such dataset.
        """
        return catalogue.find(dataset).kind if dataset else "classification"

    @model_validator(mode="before")
    @classmethod
    def _known_options(cls, value: Any) -> Any:
        """What is known of a dataset stands where nothing else is said."""
        if not isinstance(value, Mapping) or not value.get("dataset"):
            return value
        known, kind = catalogue.find(value["dataset"]), cls.model_fields["kind"].default
        if known.kind != kind:
            raise ValueError(
                f"--kind {kind}: the task {known.name} is of the kind {known.kind}; leave --kind "
                "out"
            )
        return {**known.options, **value}

    @model_validator(mode="after")
    def _can_lead_with_metric(self) -> Task[E]:
        choices = self.metric_choices
        if self.metric is not None and self.metric not in choices:
            raise ValueError(
                f"--metric {cut(self.metric, 40)}{did_you_mean(self.metric[:60], choices) or '.'} "
                f"Choose from {', '.join(choices)}."
            )
        return self

    @property
    def problem(self) -> str:
        """What reports call it."""
        return self.title

    @property
    @abstractmethod
    def metric_choices(self) -> tuple[str, ...]:
        """Every metric it can lead with."""

    @property
    def usual_metrics(self) -> tuple[str, ...]:
        """What is measured where no known dataset says otherwise, the headline first."""
        return self.metric_choices

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What is measured, the headline first."""
        names = self.known.metrics if self.known else self.usual_metrics
        return tuple(dict.fromkeys([self.metric, *names])) if self.metric else names

    def measured(self, examples: E) -> tuple[str, ...]:
        """What is measured on some examples, the headline first.

        Raises:
            ValueError: They cannot be measured by the metric that was named.
        """
        return self.metric_names

    def check_packages(self) -> None:
        """Refuse to begin without what is needed at the end.

        Raises:
            ValueError: A package is missing; names the extra that brings it.
        """
        for module, extra in self.packages.items():
            if importlib.util.find_spec(module) is None:
                raise ValueError(f"{self.problem} needs {module}: pip install 'sentei[{extra}]'")

    # ------------------------------------------------------------------------------ data

    def load(self, seed: int) -> tuple[E, E]:
        """Training and evaluation examples.

        Args:
            seed: Of what is set aside.

        Raises:
            ValueError: No source or an unusable one.
        """
        train, evaluation = self.load_parts()
        self.check_training(train)
        if evaluation is None:
            train, evaluation = train.split(EVAL_FRACTION, seed)
        else:
            evaluation = evaluation.relabel(train.label_names)
        return train.split(self.holdout, seed) if self.holdout else (train, evaluation)

    def load_training(self) -> E:
        """All training examples.

        Raises:
            ValueError: No source or an unusable one.
        """
        train, _ = self.load_parts()
        self.check_training(train)
        return train

    def load_evaluation(self, label_names: Sequence[str], seed: int) -> E:
        """The evaluation examples alone, their classes as a model knows them.

        Args:
            label_names: The model's classes in their order.
            seed: Of what is set aside.

        Raises:
            ValueError: No source or an unusable one, or a label that the model does not know.
        """
        known = self.known
        if self.holdout:
            examples = self.load(seed)[1]
        elif self.eval:
            examples = self.read(self.eval, self.eval_splits)
        elif self.train or not (known and known.hub):
            examples = self.load(seed)[1]
        else:
            [part] = known.load("eval")
            examples = self.from_dataset(*part)
        return examples.relabel(label_names)

    def load_parts(self) -> tuple[E, E | None]:
        """Training examples, and those to evaluate on where they are apart.

        Raises:
            ValueError: No source or an unusable one.
        """
        if self.train:
            train = self.read(self.train, ("train",))
            apart = self.eval or (self.train if self.has_evaluation(self.train) else None)
            return train, self.read(apart, self.eval_splits) if apart else None
        if not self.known:
            raise ValueError("no data: name a task with --task, or a file with --train")
        if self.eval:
            [part] = self.known.load("train")
            return self.from_dataset(*part), self.read(self.eval, self.eval_splits)
        train, evaluation = (self.from_dataset(*part) for part in self.known.load("train", "eval"))
        return train, evaluation

    @abstractmethod
    def has_evaluation(self, path: Path) -> bool:
        """Whether training data bring a split to evaluate on."""

    @abstractmethod
    def read(self, path: Path, splits: Sequence[str]) -> E:
        """The examples of a source; of several splits the first that it has.

        Raises:
            ValueError: It cannot be used; names the place, the reason and the fix.
        """

    @abstractmethod
    def from_dataset(self, dataset: Any, name: str) -> E:
        """The examples of a ``datasets.Dataset``."""

    def check_training(self, examples: E) -> None:
        """Refuse examples that there is nothing to learn from.

        Raises:
            ValueError: There is not; says why.
        """

    def columns(self, examples: E) -> tuple[str, ...]:
        """Names of columns to write the texts and labels of examples under.

        The same options read them again. Empty where examples are more than labelled texts.
        """
        return ()

    # ----------------------------------------------------------------------------- model

    @property
    def model_class(self) -> Any:
        """The class of transformers that gives a checkpoint its head."""
        import transformers

        return getattr(transformers, self.auto_class)

    def head(self, examples: E) -> dict[str, object]:
        """What the model's config must say for these examples."""
        names = examples.label_names
        if not names:
            return {}
        return {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
        }

    @abstractmethod
    def load_processor(self, folder: str, *, trust_remote_code: bool = False) -> Any:
        """What makes a model's input: its tokenizer, or an image processor.

        Args:
            folder: Of the model, or its name on the hub.
            trust_remote_code: Whether code that comes with the model may be run.

        Raises:
            OSError, ValueError, KeyError, ImportError: It cannot be loaded.
        """

    @abstractmethod
    def same_input(self, ours: Any, theirs: Any) -> bool:
        """Whether two processors make the same input."""

    def check_model(self, model: PreTrainedModel, features: Features) -> None:
        """Refuse a model that cannot do this.

        Raises:
            ValueError: It cannot; says why.
        """

    # -------------------------------------------------------------------------- features

    @abstractmethod
    def features(self, examples: E, processor: Any, *, seed: int | None = None) -> Features:
        """Examples made ready for a model.

        Args:
            examples: The examples.
            processor: Makes the model's input.
            seed: Of what training draws for them anew in every epoch; None draws nothing.

        Raises:
            ValueError: They do not fit the model's input.
        """

    @abstractmethod
    def collator(self, processor: Any) -> Collator:
        """What makes a batch of features."""

    def truncated(self, features: Features, processor: Any) -> float | None:
        """Fraction of the examples cut at the length limit; None where nothing is cut."""
        return None

    # --------------------------------------------------------------------------- metrics

    @abstractmethod
    def predict(self, model: PreTrainedModel, batch: Batch, processor: Any) -> Prediction:
        """A model's output on a batch."""

    @abstractmethod
    def metrics(
        self, predictions: Sequence[Prediction], examples: E, features: Features
    ) -> dict[str, float]:
        """The metrics of all predictions, the headline first.

        Raises:
            ValueError: The model's output is not finite.
        """

    def headline_first(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Metrics in the order of a report."""
        headline = self.metric_names[0]
        return {headline: metrics[headline], **metrics}
