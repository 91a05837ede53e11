"""A class or a number for a text or a pair of texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

from sentei.data.features import Features, tokenise
from sentei.data.table import Layout, Table
from sentei.models.demo import DEMO

if TYPE_CHECKING:
    from sentei.run.settings import Settings
from sentei.tasks import catalogue as tasks
from sentei.tasks import demo, metrics
from sentei.tasks import texts as data
from sentei.tasks.labelled import Labelled
from sentei.tasks.task import OF_TABLES, Collator
from sentei.tasks.texts import Examples


class Classification(Labelled[Examples]):
    """Text or pairs of texts, classes or values."""

    name = "classification"
    model_class = AutoModelForSequenceClassification
    columns = ("text_column", "pair_column", "label_column")
    options = ("regression", "max_length", *OF_TABLES)
    metric_names = tuple(metrics.METRICS)
    packages: ClassVar = {"sklearn": "metrics", "scipy": "metrics"}
    pads = True
    caches = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.problem = self.layout().problem
        self.default_metrics = tasks.DEFAULT_METRICS[self.problem]
        self.metric_names = metrics.FOR[self.problem]

    def layout(self) -> Layout:
        """Its columns and how its files are written."""
        return self.settings.layout()

    def load(self) -> tuple[Examples, Examples]:
        """Training and evaluation examples; the demo's where it is asked for.

        Raises:
            ValueError: No source or an unusable one, or files beside the demo's data.
        """
        if self.settings.task != DEMO:
            return super().load()
        for option in ("train", "eval"):
            if file := getattr(self.settings, option):
                raise ValueError(
                    f"--{option} {file}: --task {DEMO} trains and evaluates on BBC news; leave "
                    "--task out to use your own files, or leave the file out"
                )
        return demo.load_demo(seed=0)

    def from_files(self, train: Path, evaluation: Path | None) -> tuple[Examples, Examples]:
        """Both parts out of files."""
        return data.load_files(
            train, evaluation, self.layout(), splits=self.eval_splits, seed=self.settings.seed
        )

    def from_hub(self, task: tasks.Task) -> tuple[Examples, Examples]:
        """Both parts of a known task."""
        return data.load_hub(task)

    def from_table(self, table: Table) -> Examples:
        """The examples of a table."""
        return data.examples(table, self.layout())

    def split(self, examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
        """A part of each class set aside."""
        return data.split(examples, fraction, seed)

    def head(self, examples: Examples) -> dict[str, object]:
        """Classes, or one value."""
        if not examples.label_names:
            return {"num_labels": 1, "problem_type": "regression"}
        return super().head(examples) | {"problem_type": "single_label_classification"}

    def features(self, examples: Examples, processor: Any, *, training: bool) -> Features:
        """One example each."""
        return tokenise(examples, processor, self.length(processor))

    def collator(self, processor: Any) -> Collator:
        """Padding to the longest of a batch."""
        return DataCollatorWithPadding(processor)
