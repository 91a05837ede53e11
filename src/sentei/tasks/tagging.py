"""A tag for every token: entities in the BIO notation, measured by whole spans.

Files are columns as in CoNLL's shared tasks, a token a line and an empty line between sentences, or
objects with a list of tokens and a list of tags. Spans are counted as the shared tasks count them:
an I- that continues nothing begins a span.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from sentei.data.formats import ARROW, lines, read_text, suffix
from sentei.data.table import Table
from sentei.messages import counted, short
from sentei.tasks.tagged_sentences import OUTSIDE, TaggedSentences, fault
from sentei.tasks.task import Prediction
from sentei.tasks.text import TextTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sentei.data.features import Features
    from sentei.tasks.task import Batch, Collator

_OBJECTS: Final = (".jsonl", ".ndjson", ".json", *ARROW)
"""Files with a list of tokens and a list of tags in each row."""


class Tagging(TextTask[TaggedSentences]):
    """Token classification."""

    kind: Literal["tokens"] = "tokens"

    tokens_column: str | None = None
    """Column of the list of tokens; in .conll files its number [default: tokens, or 1]."""

    tags_column: str | None = None
    """Column of the list of BIO tags; in .conll files its number [default: tags, or the last]."""

    title = "token classification"
    auto_class = "AutoModelForTokenClassification"
    pipeline_tag = "token-classification"
    pads = True
    packages: ClassVar = {"seqeval": "tokens"}
    one_pass = True

    @property
    def metric_choices(self) -> tuple[str, ...]:
        """Of spans, and of single tags."""
        return ("f1", "precision", "recall", "accuracy")

    # ------------------------------------------------------------------------------ data

    def read(self, path: Path, splits: Sequence[str]) -> TaggedSentences:
        """The sentences of a file of columns or of objects, or of a dataset.

        Raises:
            ValueError: It cannot be used; names the place, the reason and the fix.
        """
        if path.is_file() and suffix(path) not in _OBJECTS:
            return self._read_columns(path)
        return super().read(path, splits)

    def _read_columns(self, path: Path) -> TaggedSentences:
        if suffix(path) == ".csv":
            raise ValueError(
                f"{path}: tokens and tags are read from columns with a token a line (.conll, "
                f".txt, .tsv) or from objects with lists (.jsonl), not from .csv."
            )
        places = (
            _place("--tokens-column", self.tokens_column, 0),
            _place("--tags-column", self.tags_column, -1),
        )
        sentences, tags, inside = list[list[str]](), list[list[str]](), False
        text = read_text(path, self.format().encoding)
        for number, line in enumerate(lines(text), start=1):
            cells = self._cells(line)
            if not line.strip() or not any(cells) or cells[0] == "-DOCSTART-":
                inside = False
                continue
            if not inside and line.startswith("#") and fault("#", cells[-1]):
                continue  # a comment before a sentence, as in CoNLL-U: no tag ends it
            if max(places) >= len(cells) or len(cells) < 2:
                raise ValueError(
                    f"{path}, line {number}: {short(line)} has {counted(len(cells), 'column')}; a "
                    f"line is a token and its tag. See --tokens-column, --tags-column and "
                    f"--delimiter."
                )
            word, tag = (cells[place] for place in places)
            if reason := fault(word, tag):
                raise ValueError(f"{path}, line {number}: {reason}")
            if not inside:
                sentences.append([])
                tags.append([])
            inside = True
            sentences[-1].append(word)
            tags[-1].append(tag)
        return TaggedSentences.of(sentences, tags, f"{path} (tokens -> tags)")

    def _cells(self, line: str) -> list[str]:
        separator = (self.delimiter or "\t").replace("\\t", "\t")
        if self.delimiter or separator in line:
            return [cell.strip(" \t") for cell in line.split(separator)]
        # not at every blank of Unicode: U+00A0 and U+3000 stand inside words, and are some
        return re.split("[ \t]+", line.strip(" \t"))

    def from_table(self, table: Table) -> TaggedSentences:
        """The sentences of a table with a list of tokens and a list of tags in each row.

        Raises:
            ValueError: They cannot be used; names the row.
        """
        names = self.tokens_column or "tokens", self.tags_column or "tags"
        sentences, tags = list[list[str]](), list[list[str]]()
        rows = zip(
            table.column(names[0], "--tokens-column"),
            table.labels(names[1], "--tags-column"),
            strict=True,
        )
        for row, cells in enumerate(rows):
            for column, cell in zip(names, cells, strict=True):
                if not isinstance(cell, list) or not cell:
                    table.fail(row, f"column {column!r} holds {short(cell)}, not a list of texts.")
            words, labels = cells
            assert isinstance(words, list) and isinstance(labels, list)
            if len(words) != len(labels):
                table.fail(
                    row,
                    f"there are {counted(len(words), 'token')} and {counted(len(labels), 'tag')}; "
                    f"each token needs one.",
                )
            for word, tag in zip(words, labels, strict=True):
                if reason := fault(word, tag):
                    table.fail(row, reason)
            sentences.append(words)
            tags.append(labels)
        source = f"{table.name} ({names[0]} -> {names[1]})"
        return TaggedSentences.of(sentences, tags, source, table.classes(names[1]))

    # ------------------------------------------------------------------ model and features

    def load_processor(self, folder: str, *, trust_remote_code: bool = False) -> Any:
        """The tokenizer, set to take text as words."""
        from transformers import AutoTokenizer

        trust: Any = {"trust_remote_code": trust_remote_code}
        tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
        if getattr(tokenizer, "add_prefix_space", None) is False:
            # A byte-level tokenizer knows a word by the space before it, which a list lacks.
            tokenizer = AutoTokenizer.from_pretrained(folder, add_prefix_space=True, **trust)
        return self.padded(tokenizer)

    def features(
        self, examples: TaggedSentences, processor: Any, *, seed: int | None = None
    ) -> Features:
        """A sentence each; the first piece of a word has its tag."""
        from sentei.tasks.tagged_tokens import tokenise

        return tokenise(examples, processor, self.length(processor))

    def collator(self, processor: Any) -> Collator:
        """Padding of tokens and labels to the longest of a batch."""
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(processor)

    # --------------------------------------------------------------------------- metrics

    def predict(self, model: PreTrainedModel, batch: Batch, processor: Any) -> Prediction:
        """The likeliest tag of every word that the model saw."""
        from sentei.tasks.metrics import check_finite
        from sentei.tasks.tagged_tokens import IGNORED

        output = model(**batch)
        logits = output.logits.float().cpu().numpy()
        check_finite(logits)
        visible = batch["labels"].cpu().numpy() != IGNORED
        best = logits.argmax(axis=-1)
        values = [row[mask].tolist() for row, mask in zip(best, visible, strict=True)]
        return Prediction(float(output.loss), int(visible.sum()), values)

    def metrics(
        self, predictions: Sequence[Prediction], examples: TaggedSentences, features: Features
    ) -> dict[str, float]:
        """Precision, recall and F1 of spans, and accuracy of tags.

        Words beyond the length limit count as untagged.
        """
        from sentei.tasks.tagged_tokens import TaggedTokens

        assert isinstance(features, TaggedTokens)
        names, predicted = examples.label_names, list[list[str]]()
        for i, tags in enumerate(value for one in predictions for value in one.values):
            row = [OUTSIDE] * len(examples.tags[i])
            for word, tag in zip(features.words[i], tags, strict=True):
                row[word] = names[tag]
            predicted.append(row)
        truth = [[names[tag] for tag in tags] for tags in examples.tags]
        return self.headline_first(span_scores(truth, predicted))


def _place(option: str, column: str | None, usual: int) -> int:
    """Which column of a file without names is meant."""
    if column is None:
        return usual
    if not column.isdigit() or int(column) < 1:
        raise ValueError(
            f"{option} {column}: a file of columns has no names; count its columns from 1"
        )
    return int(column) - 1


def span_scores(truth: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    """F1, precision and recall of spans over all sentences, and accuracy of tags."""
    from seqeval import metrics

    spans = {"zero_division": 0, "average": "micro"}
    return {
        "f1": float(metrics.f1_score(truth, predicted, **spans)),
        "precision": float(metrics.precision_score(truth, predicted, **spans)),
        "recall": float(metrics.recall_score(truth, predicted, **spans)),
        "accuracy": float(metrics.accuracy_score(truth, predicted)),
    }
