"""The examples of a run, beside the task that says what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sentei.data.features import Features
from sentei.models.loading import Head, load_processor
from sentei.tasks.examples import Examples
from sentei.tasks.task import Task


@dataclass(frozen=True)
class Corpus:
    """Training and evaluation examples, and the task that says what becomes of them."""

    task: Task[Any]
    train: Examples
    evaluation: Examples

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.task.source_name

    @property
    def problem(self) -> str:
        """What reports call the task."""
        return self.task.problem

    @property
    def headline(self) -> str:
        """The metric that names the best model."""
        return self.task.measured(self.evaluation)[0]

    @property
    def head(self) -> Head:
        """What a model for these examples ends in."""
        task = self.task
        return Head(task.model_class, task.head(self.train), f"--kind {task.label}")

    def load_processor(
        self, folder: str, option: str = "model", *, trust_remote_code: bool = False
    ) -> Any:
        """What makes a model's input for these examples.

        Raises:
            ValueError: It cannot be loaded.
        """
        load = partial(self.task.load_processor, trust_remote_code=trust_remote_code)
        return load_processor(load, folder, self.task.processor_name, option)

    def training_features(self, processor: Any, seed: int) -> Features:
        """The training examples made ready for a model.

        Raises:
            ValueError: They do not fit the model's input.
        """
        return self.task.features(self.train, processor, seed=seed)

    def evaluation_features(self, processor: Any) -> Features:
        """The evaluation examples made ready for a model.

        Raises:
            ValueError: They do not fit the model's input.
        """
        return self.task.features(self.evaluation, processor)


def load_corpus(task: Task[Any], seed: int) -> Corpus:
    """A task's data, from files, the hub or the demo package.

    Args:
        task: The task.
        seed: Of what is set aside.

    Raises:
        ValueError: No source or an unusable one.
    """
    return Corpus(task, *task.load(seed))


def load_evaluation(task: Task[Any], label_names: Sequence[str], seed: int) -> Corpus:
    """A task's evaluation data alone, its labels as the model's.

    Args:
        task: The task.
        label_names: The model's classes in their order.
        seed: Of what is set aside.

    Raises:
        ValueError: No source or an unusable one, or a label that the model does not know.
    """
    task.check_packages()
    examples = task.load_evaluation(label_names, seed)
    return Corpus(task, examples, examples)
