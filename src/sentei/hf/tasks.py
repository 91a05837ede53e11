"""The text tasks Sentei knows by name: where each is kept, its columns and its metrics.

GLUE (arXiv:1804.07461) with the metrics of its leaderboard, under the column and split names of
the ``nyu-mll/glue`` dataset on the Hugging Face hub.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Problem = Literal["classification", "regression"]


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the Hugging Face hub: its path, configuration and the two splits used."""

    path: str
    config: str
    train_split: str = "train"
    eval_split: str = "validation"


@dataclass(frozen=True, kw_only=True)
class TextTask:
    """One text, or a pair of texts, in; a class or a number out.

    ``metrics`` are names of :data:`sentei.hf.metrics.METRICS`, the headline first. ``hub`` is None
    for a task that exists only as files.
    """

    name: str
    problem: Problem
    text_column: str
    pair_column: str | None = None
    label_column: str = "label"
    metrics: tuple[str, ...]
    hub: HubDataset | None = None

    @property
    def metric(self) -> str:
        """The headline metric: the one that names the best model."""
        return self.metrics[0]


DEFAULT_METRICS: Final[dict[Problem, tuple[str, ...]]] = {
    "classification": ("accuracy", "f1"),
    "regression": ("pearson", "spearman"),
}
"""What is measured on files that belong to no known task."""


def _glue(
    name: str,
    text: str,
    pair: str | None = None,
    *,
    metrics: tuple[str, ...] = ("accuracy",),
    problem: Problem = "classification",
    eval_split: str = "validation",
) -> TextTask:
    return TextTask(
        name=name,
        problem=problem,
        text_column=text,
        pair_column=pair,
        metrics=metrics,
        hub=HubDataset("nyu-mll/glue", name, eval_split=eval_split),
    )


TASKS: Final[dict[str, TextTask]] = {
    task.name: task
    for task in (
        _glue("cola", "sentence", metrics=("matthews",)),
        _glue("sst2", "sentence"),
        _glue("mrpc", "sentence1", "sentence2", metrics=("accuracy", "f1")),
        _glue(
            "stsb",
            "sentence1",
            "sentence2",
            metrics=("pearson", "spearman"),
            problem="regression",
        ),
        _glue("qqp", "question1", "question2", metrics=("accuracy", "f1")),
        _glue("mnli", "premise", "hypothesis", eval_split="validation_matched"),
        _glue("qnli", "question", "sentence"),
        _glue("rte", "sentence1", "sentence2"),
        _glue("wnli", "sentence1", "sentence2"),
    )
}
"""Every task known by name."""


def find(name: str) -> TextTask:
    """The task of that name; case, hyphens and underscores do not matter (``SST-2``, ``sts_b``).

    Raises:
        ValueError: If no task has that name.
    """
    plain = name.lower().replace("-", "").replace("_", "")
    if plain not in TASKS:
        raise ValueError(
            f"there is no task {name!r}{did_you_mean(plain, TASKS)} "
            f"The tasks are {', '.join(TASKS)}; for your own data use --train and --eval."
        )
    return TASKS[plain]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest known one if any, and a full stop."""
    plain = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), plain, n=1)
    return f"; did you mean {plain[near[0]]!r}?" if near else "."
