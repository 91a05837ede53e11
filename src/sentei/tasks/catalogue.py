"""The tasks Sentei knows by name: where each is kept, its columns and its metrics.

GLUE (arXiv:1804.07461) with the metrics of its leaderboard, under the column and split names of
the ``nyu-mll/glue`` dataset on the Hugging Face hub, and usual tasks of the other kinds. Datasets
that the hub keeps behind a script are read from its own conversion of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sentei.data.table import Layout, Problem

CONVERTED: Final = "refs/convert/parquet"
"""Branch of the hub with a dataset as plain files, where its own files are a script."""


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the Hugging Face hub: its path, configuration and the two splits used."""

    path: str
    config: str | None
    train_split: str = "train"
    eval_split: str = "validation"
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """What goes in and what comes out, under a known name.

    ``kind`` is a name of :data:`sentei.tasks.KINDS`. ``columns`` maps the settings that name
    columns to their names in this task. ``metrics`` are those of its kind, the headline first.
    ``hub`` is None for a task that exists only as files.
    """

    name: str
    kind: str = "classification"
    problem: Problem = "classification"
    columns: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...]
    hub: HubDataset | None = None

    @property
    def metric(self) -> str:
        """The headline metric: the one that names the best model."""
        return self.metrics[0]


def layout_of(task: Task) -> Layout:
    """The columns and the problem of a known task of text."""
    return Layout(
        text_column=task.columns.get("text_column"),
        pair_column=task.columns.get("pair_column"),
        label_column=task.columns.get("label_column", "label"),
        problem=task.problem,
    )


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
    config: str | None = None,
    metrics: tuple[str, ...] = ("accuracy",),
    problem: Problem = "classification",
    eval_split: str = "validation",
) -> Task:
    columns = {"text_column": text, "label_column": "label"}
    return Task(
        name=name,
        problem=problem,
        columns=columns | ({"pair_column": pair} if pair else {}),
        metrics=metrics,
        hub=HubDataset("nyu-mll/glue", config or name, eval_split=eval_split),
    )


def _tags(name: str, path: str) -> Task:
    return Task(
        name=name,
        kind="tokens",
        columns={"tokens_column": "tokens", "tags_column": "ner_tags"},
        metrics=("f1", "precision", "recall", "accuracy"),
        hub=HubDataset(path, None, revision=CONVERTED),  # that branch names no configurations
    )


def _squad(name: str, metrics: tuple[str, ...]) -> Task:
    return Task(
        name=name,
        kind="answers",
        columns={
            "question_column": "question",
            "context_column": "context",
            "answers_column": "answers",
        },
        metrics=metrics,
        hub=HubDataset(f"rajpurkar/{name}", None),
    )


def _images(name: str, path: str, image: str, label: str, eval_split: str) -> Task:
    return Task(
        name=name,
        kind="images",
        columns={"image_column": image, "label_column": label},
        metrics=("accuracy", "f1"),
        hub=HubDataset(path, None, eval_split=eval_split),
    )


def _wikitext(name: str, config: str) -> Task:
    return Task(
        name=name,
        kind="language",
        columns={"text_column": "text"},
        metrics=("perplexity",),
        hub=HubDataset("Salesforce/wikitext", config),
    )


def _summaries(
    name: str, path: str, config: str | None, text: str, target: str, revision: str | None = None
) -> Task:
    return Task(
        name=name,
        kind="summaries",
        columns={"text_column": text, "target_column": target},
        metrics=("rougeL", "rouge1", "rouge2"),
        hub=HubDataset(path, config, revision=revision),
    )


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


TASKS: Final[dict[str, Task]] = {
    _plain(task.name): task
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
        _glue(
            "mnli_mismatched",
            "premise",
            "hypothesis",
            config="mnli",
            eval_split="validation_mismatched",
        ),
        _glue("qnli", "question", "sentence"),
        _glue("rte", "sentence1", "sentence2"),
        _glue("wnli", "sentence1", "sentence2"),
        _tags("wnut_17", "leondz/wnut_17"),
        _tags("conll2003", "eriktks/conll2003"),
        _squad("squad", ("f1", "exact_match")),
        _squad("squad_v2", ("f1", "exact_match", "best_f1", "best_exact_match")),
        _images("cifar10", "uoft-cs/cifar10", "img", "label", "test"),
        _images("cifar100", "uoft-cs/cifar100", "img", "fine_label", "test"),
        _wikitext("wikitext2", "wikitext-2-raw-v1"),
        _wikitext("wikitext103", "wikitext-103-raw-v1"),
        _summaries("xsum", "EdinburghNLP/xsum", "default", "document", "summary", CONVERTED),
        _summaries("cnn_dailymail", "abisee/cnn_dailymail", "3.0.0", "article", "highlights"),
    )
}
"""Every task known by name, by that name in small letters without hyphens and underscores."""


def find(name: str) -> Task:
    """The task of that name; case, hyphens and underscores do not matter (``SST-2``, ``sts_b``).

    Raises:
        ValueError: If no task has that name.
    """
    plain = _plain(name)
    if plain not in TASKS:
        names = [task.name for task in TASKS.values()]
        raise ValueError(
            f"there is no task {name!r}{did_you_mean(name, names)} "
            f"The tasks are {', '.join(names)}; for your own data use --train and --eval."
        )
    return TASKS[plain]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest known one if any, and a full stop."""
    plain = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), plain, n=1)
    return f"; did you mean {plain[near[0]]!r}?" if near else "."
