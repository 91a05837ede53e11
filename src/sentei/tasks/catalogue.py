"""The datasets Sentei knows by name: where each is kept, its columns and its metrics.

GLUE (arXiv:1804.07461) with the metrics of its leaderboard, under the column and split names of
the ``nyu-mll/glue`` dataset on the Hugging Face hub, and usual datasets of the other tasks. Those
that the hub keeps behind a script are read from its own conversion of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sentei.data import hub
from sentei.messages import did_you_mean, short
from sentei.models.demo import DEMO

DEMO_SENTENCES: Final = "demo_sentences"
"""The demo's texts, cut into sentences."""

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
class KnownDataset:
    """A dataset under the name that ``--task`` gives it.

    ``kind`` is that of its task, ``options`` what the dataset says of the task's own fields: its
    columns, and whether its labels are numbers. ``metrics`` are measured on it, the headline first.
    ``hub`` is None where it is not on the hub, ``title`` what reports call it instead of its name.
    """

    name: str
    kind: str = "classification"
    options: Mapping[str, object] = field(default_factory=dict)
    metrics: tuple[str, ...]
    hub: HubDataset | None = None
    title: str = ""

    def load(self, *parts: Literal["train", "eval"]) -> list[tuple[Any, str]]:
        """Parts of the dataset on the hub, each with its name in words.

        Raises:
            ValueError: It is not on the hub, or the hub cannot be reached.
        """
        if self.hub is None:
            raise ValueError(
                f"task {self.name!r} is not on the hub: give files, --train and --eval."
            )
        names = {"train": self.hub.train_split, "eval": self.hub.eval_split}
        splits = [names[part] for part in parts]
        return hub.load(self.hub.path, self.hub.config, splits, self.hub.revision)


def _glue(
    name: str,
    text: str,
    pair: str | None = None,
    *,
    config: str | None = None,
    metrics: tuple[str, ...] = ("accuracy",),
    regression: bool = False,
    eval_split: str = "validation",
) -> KnownDataset:
    columns = {"text_column": text, "pair_column": pair, "label_column": "label"}
    return KnownDataset(
        name=name,
        options={**columns, "regression": regression},
        metrics=metrics,
        hub=HubDataset("nyu-mll/glue", config or name, eval_split=eval_split),
    )


def _tags(name: str, path: str) -> KnownDataset:
    return KnownDataset(
        name=name,
        kind="tokens",
        options={"tokens_column": "tokens", "tags_column": "ner_tags"},
        metrics=("f1", "precision", "recall", "accuracy"),
        hub=HubDataset(path, None, revision=CONVERTED),  # that branch names no configurations
    )


def _squad(name: str, metrics: tuple[str, ...]) -> KnownDataset:
    return KnownDataset(
        name=name,
        kind="answers",
        options={
            "question_column": "question",
            "context_column": "context",
            "answers_column": "answers",
        },
        metrics=metrics,
        hub=HubDataset(f"rajpurkar/{name}", None),
    )


def _images(name: str, path: str, image: str, label: str, eval_split: str) -> KnownDataset:
    return KnownDataset(
        name=name,
        kind="images",
        options={"image_column": image, "label_column": label},
        metrics=("accuracy", "f1"),
        hub=HubDataset(path, None, eval_split=eval_split),
    )


def _wikitext(name: str, config: str) -> KnownDataset:
    return KnownDataset(
        name=name,
        kind="language",
        options={"text_column": "text"},
        metrics=("perplexity",),
        hub=HubDataset("Salesforce/wikitext", config),
    )


def _summaries(
    name: str, path: str, config: str | None, text: str, target: str, revision: str | None = None
) -> KnownDataset:
    return KnownDataset(
        name=name,
        kind="summaries",
        options={"text_column": text, "target_column": target},
        metrics=("rougeL", "rouge1", "rouge2"),
        hub=HubDataset(path, config, revision=revision),
    )


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


DATASETS: Final[dict[str, KnownDataset]] = {
    _plain(known.name): known
    for known in (
        _glue("cola", "sentence", metrics=("matthews",)),
        _glue("sst2", "sentence"),
        _glue("mrpc", "sentence1", "sentence2", metrics=("accuracy", "f1")),
        _glue(
            "stsb",
            "sentence1",
            "sentence2",
            metrics=("pearson", "spearman"),
            regression=True,
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
        _images("imagenet", "ILSVRC/imagenet-1k", "image", "label", "validation"),
        _wikitext("wikitext2", "wikitext-2-raw-v1"),
        _wikitext("wikitext103", "wikitext-103-raw-v1"),
        _summaries("xsum", "EdinburghNLP/xsum", "default", "document", "summary", CONVERTED),
        _summaries("cnn_dailymail", "abisee/cnn_dailymail", "3.0.0", "article", "highlights"),
        KnownDataset(name=DEMO, title="BBC news", metrics=("accuracy", "f1")),
        KnownDataset(
            name=DEMO_SENTENCES,
            kind="embeddings",
            title="sentences of BBC news",
            metrics=("neighbors@10", "cosine"),
        ),
    )
}
"""Every dataset known by name, by that name in small letters without hyphens and underscores."""


def find(name: str) -> KnownDataset:
    """The dataset of that name; case, hyphens and underscores do not matter (``SST-2``, ``sts_b``).

    Raises:
        ValueError: If no dataset has that name.
    """
    name = str(name)[:60]  # a file may say anything
    plain = _plain(name)
    if plain not in DATASETS:
        names = [known.name for known in DATASETS.values()]
        raise ValueError(
            f"there is no task {short(name)}{did_you_mean(name, names) or '.'} "
            f"The tasks are {', '.join(names)}; for your own data use --train and --eval."
        )
    return DATASETS[plain]
