"""What a kind of task has to say for itself; loading, training and reports know only this.

settings ──► examples ──► features ──► batches ──► said ──► metrics
             read, hub    features()   collator()  said()   measure()
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from transformers import AutoTokenizer, PreTrainedModel

from sentei.data.features import Features, check_positions
from sentei.data.sources import from_dataset, read, split_names
from sentei.data.table import Layout, Table
from sentei.models.demo import DEMO

if TYPE_CHECKING:
    from sentei.run.settings import Settings
from sentei.tasks import catalogue as tasks
from sentei.tasks.texts import EVAL_SPLITS, known_splits

Batch = dict[str, torch.Tensor]
Collator = Callable[[list[dict[str, Any]]], Mapping[str, Any]]

OF_TABLES = ("encoding", "quoting", "delimiter", "header")
"""Settings that say how files of tables are written."""

EVAL_FRACTION = 0.1
"""Of the training data, set aside where there is no evaluation data."""


class Examples(Protocol):
    """The examples of one part of a corpus, as they were read."""

    @property
    def source(self) -> str:
        """Where they come from, in words."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes in their order; empty where there are none."""

    def __len__(self) -> int: ...

    def counts(self) -> dict[str, int]:
        """How often each class occurs; empty where there are none."""

    def relabel(self, label_names: Sequence[str]) -> Self:
        """The same under another order of the class names, such as a saved model's."""


class Unlabelled:
    """Examples without classes."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def counts(self) -> dict[str, int]:
        """None."""
        return {}

    def relabel(self, label_names: Sequence[str]) -> Self:
        """The same."""
        return self


@dataclass(frozen=True)
class Said:
    """What a model said to one batch.

    ``loss`` is a mean over ``labels`` labels; ``values`` is what the kind needs for its metrics.
    """

    loss: float
    labels: int
    values: Any


E = TypeVar("E", bound=Examples)


class Kind(ABC, Generic[E]):
    """A kind of task, as the settings of a run ask for it.

    Args:
        settings: The run's.

    Raises:
        ValueError: No task has that name.
    """

    name: ClassVar[str]
    """What ``--kind`` calls it."""

    problem: str
    """What reports call it."""

    model_class: ClassVar[Any]
    """The class of transformers that gives a checkpoint its head."""

    columns: ClassVar[tuple[str, ...]] = ()
    """The settings that name its columns."""

    options: ClassVar[tuple[str, ...]] = ()
    """The other settings that it reads and not every kind does."""

    metric_names: tuple[str, ...]
    """Every metric it can lead with."""

    default_metrics: tuple[str, ...]
    """What is measured where no task says otherwise, the headline first."""

    packages: ClassVar[Mapping[str, str]] = {}
    """Modules it cannot do without, and the extra that brings each."""

    processor_name: ClassVar[str] = "tokenizer"
    """What makes its model's input."""

    default_length: ClassVar[int] = 128
    """Tokens of an example, where nobody says."""

    cannot_learn: ClassVar[str] = ""
    """Why its models cannot learn from a teacher; empty where they can."""

    one_each: ClassVar[bool] = True
    """Whether every example makes one feature, so that the steps are known before any is made."""

    any_order: ClassVar[bool] = False
    """Whether metrics do not depend on the order in which features are shown."""

    pads: ClassVar[bool] = False
    """Whether the texts of a batch are padded to one length."""

    caches: ClassVar[bool] = False
    """Whether a teacher's answers can be kept on disk."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        known = settings.task and settings.task != DEMO
        self.task = tasks.find(str(settings.task)) if known else None

    # ------------------------------------------------------------------------ settings

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is measured, the headline first."""
        names = self.task.metrics if self.task else self.default_metrics
        wanted = self.settings.metric
        return tuple(dict.fromkeys([wanted, *names])) if wanted else names

    def check_metric(self) -> None:
        """Refuse a headline that this kind does not measure.

        Raises:
            ValueError: ``--metric`` names one.
        """
        wanted = self.settings.metric
        if wanted is not None and wanted not in self.metric_names:
            raise ValueError(
                f"--metric {wanted}{tasks.did_you_mean(wanted, self.metric_names)} "
                f"Choose from {', '.join(self.metric_names)}."
            )

    def column(self, setting: str) -> str | None:
        """The column that a setting names, or the task, if either does."""
        named: str | None = getattr(self.settings, setting)
        return named or (self.task.columns.get(setting) if self.task else None)

    def layout(self) -> Layout:
        """How its files are written, whatever their columns."""
        settings = self.settings
        return Layout(
            label_column=self.column("label_column") or "label",
            encoding=settings.encoding,
            quoting=settings.quoting,
            delimiter=settings.delimiter,
            header=settings.header,
        )

    @property
    def eval_splits(self) -> tuple[str, ...]:
        """What a saved dataset's split for evaluation may be called, the task's own first."""
        hub = self.task.hub if self.task else None
        return (hub.eval_split, *EVAL_SPLITS) if hub else EVAL_SPLITS

    def check_packages(self) -> None:
        """Refuse to begin without what is needed at the end.

        Raises:
            ValueError: A package is missing; names the extra that brings it.
        """
        for module, extra in self.packages.items():
            if importlib.util.find_spec(module) is None:
                raise ValueError(f"{self.problem} needs {module}: pip install 'sentei[{extra}]'")

    # ---------------------------------------------------------------------------- data

    def load(self) -> tuple[E, E]:
        """Training and evaluation examples.

        Raises:
            ValueError: No source or an unusable one.
        """
        if self.settings.train:
            return self.from_files(self.settings.train, self.settings.eval)
        if self.task:
            train, evaluation = self.from_hub(self.task)
            if self.settings.eval:
                found = self.read(self.settings.eval, self.eval_splits)
                evaluation = found.relabel(train.label_names)
            return train, evaluation
        raise ValueError("no data: name a task with --task, or a file with --train")

    def load_evaluation(self, label_names: Sequence[str]) -> E:
        """The evaluation examples alone, their classes as a model knows them.

        Raises:
            ValueError: No source or an unusable one, or a label that the model does not know.
        """
        if self.settings.eval:
            found = self.read(self.settings.eval, self.eval_splits)
        elif self.settings.train or not self.task:
            found = self.load()[1]
        else:
            [(dataset, name)] = known_splits(self.task, ["eval"])
            found = self.from_dataset(dataset, name)
        return found.relabel(label_names)

    def from_files(self, train: Path, evaluation: Path | None) -> tuple[E, E]:
        """Both parts out of files, one of them set aside where it has none of its own."""
        found = self.read(train, ("train",))
        if evaluation is None:
            if not self.has_evaluation(train):
                return self.split(found, EVAL_FRACTION, self.settings.seed)
            evaluation = train
        return found, self.read(evaluation, self.eval_splits).relabel(found.label_names)

    def from_hub(self, task: tasks.Task) -> tuple[E, E]:
        """Both parts of a known task."""
        train, evaluation = (self.from_dataset(*found) for found in known_splits(task))
        return train, evaluation.relabel(train.label_names)

    def has_evaluation(self, path: Path) -> bool:
        """Whether training data bring a split to evaluate on."""
        return bool(split_names(path).intersection(self.eval_splits))

    def read(self, path: Path, splits: Sequence[str]) -> E:
        """The examples of a file or folder; of several splits the first that it has.

        Raises:
            ValueError: It cannot be used; names the place, the reason and the fix.
        """
        return self.from_table(read(path, self.layout(), splits))

    def from_dataset(self, dataset: Any, name: str) -> E:
        """The examples of a ``datasets.Dataset``."""
        return self.from_table(from_dataset(dataset, name))

    @abstractmethod
    def from_table(self, table: Table) -> E:
        """The examples of a table."""

    @abstractmethod
    def split(self, examples: E, fraction: float, seed: int) -> tuple[E, E]:
        """The examples without a part, and the part, set aside for evaluation."""

    # --------------------------------------------------------------------------- model

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

    def load_processor(self, folder: str) -> Any:
        """What makes a model's input: its tokenizer.

        Raises:
            OSError, ValueError, KeyError, ImportError: It cannot be loaded.
        """
        return self.padded(AutoTokenizer.from_pretrained(folder))

    def padded(self, tokenizer: Any) -> Any:
        """A tokenizer that can make texts of one length, where batches are padded.

        Raises:
            ValueError: It has no token to do it with.
        """
        if self.pads and tokenizer.pad_token is None:
            if tokenizer.eos_token is None:
                raise ValueError("the tokenizer has neither a padding token nor an end token")
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def same_input(self, ours: Any, theirs: Any) -> bool:
        """Whether two processors make the same input."""
        same: bool = ours.get_vocab() == theirs.get_vocab()
        return same

    def length(self, processor: Any) -> int:
        """Tokens of an example at most."""
        return self.settings.max_length or min(self.default_length, processor.model_max_length)

    def check_model(self, model: PreTrainedModel, features: Features) -> None:
        """Refuse a model that cannot do this.

        Raises:
            ValueError: It cannot; says why.
        """
        check_positions(features, model)

    # ------------------------------------------------------------------------ features

    @abstractmethod
    def features(self, examples: E, processor: Any, *, training: bool) -> Features:
        """Examples made ready for a model.

        Raises:
            ValueError: They do not fit the model's input.
        """

    @abstractmethod
    def collator(self, processor: Any) -> Collator:
        """What makes a batch of features."""

    def truncated(self, features: Features, processor: Any) -> float | None:
        """Fraction of the examples cut at the length limit; None where nothing is cut."""
        lengths = features.lengths
        return None if lengths is None else float((lengths >= self.length(processor)).mean())

    # ------------------------------------------------------------------------- metrics

    @abstractmethod
    def said(self, model: PreTrainedModel, batch: Batch, processor: Any) -> Said:
        """What a model says to a batch."""

    @abstractmethod
    def measure(self, said: Sequence[Said], examples: E, features: Features) -> dict[str, float]:
        """The metrics of everything a model said, the headline first.

        Raises:
            ValueError: The model's output is not finite.
        """

    def in_order(self, found: Mapping[str, float]) -> dict[str, float]:
        """Metrics with the headline first."""
        first = self.metrics[0]
        return {first: found[first], **found}
