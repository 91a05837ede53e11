"""A tag for every token: entities in the BIO notation, measured by whole spans.

Files are columns as in CoNLL's shared tasks, a token a line and an empty line between sentences, or
objects with a list of tokens and a list of tags. Spans are counted as the shared tasks count them:
an I- that continues nothing begins a span.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    PreTrainedModel,
)

from sentei.data.features import Features, Ragged, Tokens, check_length, chunks
from sentei.data.formats import read_text
from sentei.data.holdout import set_aside
from sentei.data.labels import renumber
from sentei.data.table import Layout, Table
from sentei.messages import counted, listing, short
from sentei.tasks.metrics import check_finite
from sentei.tasks.task import Batch, Collator, Kind, Said

OUTSIDE: Final = "O"
IGNORED: Final = -100
"""What a loss of transformers passes over."""

_OBJECTS: Final = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Tagged:
    """Sentences of tokens, with the number of each token's tag in ``label_names``."""

    sentences: list[list[str]]
    tags: list[list[int]]
    label_names: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.sentences)

    def counts(self) -> dict[str, int]:
        """How often each tag occurs, the most frequent first."""
        found = Counter(tag for tags in self.tags for tag in tags)
        return {self.label_names[tag]: count for tag, count in found.most_common()}

    def relabel(self, label_names: Sequence[str]) -> Self:
        """The same under another order of the tags, such as a saved model's.

        Raises:
            ValueError: If a tag that occurs has no place in ``label_names``.
        """
        index = renumber(self.counts(), label_names, self.source)
        tags = [[index[self.label_names[tag]] for tag in row] for row in self.tags]
        return replace(self, tags=tags, label_names=tuple(label_names))


class Sentences(Tokens):
    """Tokenised sentences; ``words`` are the places of the words whose first piece has a label."""

    def __init__(self, columns: dict[str, Ragged], words: Ragged) -> None:
        super().__init__(columns)
        self.words = words


class TokenTags(Kind[Tagged]):
    """Token classification."""

    name = "tokens"
    problem = "token classification"
    model_class = AutoModelForTokenClassification
    columns = ("tokens_column", "tags_column")
    options = ("max_length", "encoding", "delimiter")
    pads = True
    metric_names = ("f1", "precision", "recall", "accuracy")
    default_metrics = metric_names
    packages: ClassVar = {"seqeval": "tokens"}

    def layout(self) -> Layout:
        """How its files are written; what hub datasets call the tags."""
        return Layout(
            label_column=self.column("tags_column") or "tags",
            encoding=self.settings.encoding,
            delimiter=self.settings.delimiter,
        )

    def read(self, path: Path, splits: Sequence[str]) -> Tagged:
        """The sentences of a file of columns or of objects, or of a saved dataset.

        Raises:
            ValueError: It cannot be used; names the place, the reason and the fix.
        """
        if path.is_dir() or path.suffix.lower() in _OBJECTS:
            return super().read(path, splits)
        return self._read_columns(path)

    def _read_columns(self, path: Path) -> Tagged:
        if path.suffix.lower() == ".csv":
            raise ValueError(
                f"{path}: tokens and tags are read from columns with a token a line (.conll, "
                f".txt, .tsv) or from objects with lists (.jsonl), not from .csv."
            )
        at = self._place("tokens_column", 0), self._place("tags_column", -1)
        sentences, tags, begun = list[list[str]](), list[list[str]](), False
        text = read_text(path, self.settings.encoding)
        for number, line in enumerate(text.split("\n"), start=1):
            cells = self._cells(line)
            if not any(cells) or cells[0] == "-DOCSTART-":
                begun = False
                continue
            if max(at) >= len(cells) or len(cells) < 2:
                raise ValueError(
                    f"{path}, line {number}: {short(line)} has {counted(len(cells), 'column')}; a "
                    f"line is a token and its tag. See --tokens-column, --tags-column and "
                    f"--delimiter."
                )
            word, tag = cells[at[0]].strip(), cells[at[1]].strip()
            if reason := _wrong(word, tag):
                raise ValueError(f"{path}, line {number}: {reason}")
            if not begun:
                sentences.append([])
                tags.append([])
            begun = True
            sentences[-1].append(word)
            tags[-1].append(tag)
        return _tagged(sentences, tags, f"{path} (tokens -> tags)")

    def _cells(self, line: str) -> list[str]:
        separator = (self.settings.delimiter or "\t").replace("\\t", "\t")
        line = line.removesuffix("\r")
        if self.settings.delimiter or separator in line:
            return line.split(separator)
        return line.split()

    def _place(self, setting: str, default: int) -> int:
        named = getattr(self.settings, setting)
        if named is None:
            return default
        if not named.isdigit() or int(named) < 1:
            raise ValueError(
                f"--{setting.replace('_', '-')} {named}: a file of columns has no names; count "
                f"its columns from 1"
            )
        return int(named) - 1

    def from_table(self, table: Table) -> Tagged:
        """The sentences of a table with a list of tokens and a list of tags in each row."""
        words = self.column("tokens_column") or "tokens"
        labels = self.column("tags_column") or "tags"
        sentences, tags = list[list[str]](), list[list[str]]()
        rows = zip(
            table.column(words, "--tokens-column"),
            table.labels(labels, "--tags-column"),
            strict=True,
        )
        for row, (tokens, given) in enumerate(rows):
            for column, cell in ((words, tokens), (labels, given)):
                if not isinstance(cell, list) or not cell:
                    table.fail(row, f"column {column!r} holds {short(cell)}, not a list of texts.")
            assert isinstance(tokens, list) and isinstance(given, list)
            if len(tokens) != len(given):
                table.fail(
                    row,
                    f"there are {counted(len(tokens), 'token')} and {counted(len(given), 'tag')}; "
                    f"each token needs one.",
                )
            for token, tag in zip(tokens, given, strict=True):
                if reason := _wrong(token, tag):
                    table.fail(row, reason)
            sentences.append(tokens)
            tags.append(given)
        source = f"{table.name} ({words} -> {labels})"
        return _tagged(sentences, tags, source, table.classes(labels))

    def split(self, examples: Tagged, fraction: float, seed: int) -> tuple[Tagged, Tagged]:
        """Some sentences set aside."""
        keys = [" ".join(sentence) for sentence in examples.sentences]
        columns = ("sentences", "tags")
        return set_aside(examples, columns, keys, None, "sentence", fraction=fraction, seed=seed)

    def load_processor(self, folder: str) -> Any:
        """The tokenizer, set to take text as words."""
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if getattr(tokenizer, "add_prefix_space", None) is False:
            # A byte-level tokenizer knows a word by the space before it, which a list lacks.
            tokenizer = AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
        return self.padded(tokenizer)

    def features(self, examples: Tagged, processor: Any, *, training: bool) -> Sentences:
        """A sentence each; the first piece of a word has its tag."""
        length = self.length(processor)
        check_length(length, processor)
        columns: dict[str, Ragged] = {}
        places = Ragged()
        for chunk in chunks(len(examples)):
            rows = processor(
                examples.sentences[chunk],
                is_split_into_words=True,
                truncation=True,
                max_length=length,
            )
            labels, words = list[list[int]](), list[list[int]]()
            for row, tags in enumerate(examples.tags[chunk]):
                first = _first_pieces(rows.word_ids(row))
                labels.append([IGNORED if word is None else tags[word] for word in first])
                words.append([word for word in first if word is not None])
            for name, values in (*rows.items(), ("labels", labels)):
                columns.setdefault(name, Ragged()).extend(values)
            places.extend(words)
        return Sentences(columns, places)

    def collator(self, processor: Any) -> Collator:
        """Padding of tokens and labels to the longest of a batch."""
        return DataCollatorForTokenClassification(processor)

    def said(self, model: PreTrainedModel, batch: Batch, processor: Any) -> Said:
        """The likeliest tag of every word that the model saw."""
        output = model(**batch)
        logits = output.logits.float().cpu().numpy()
        check_finite(logits)
        seen: NDArray[np.bool_] = batch["labels"].cpu().numpy() != IGNORED
        best = logits.argmax(axis=-1)
        values = [row[mask].tolist() for row, mask in zip(best, seen, strict=True)]
        return Said(float(output.loss), int(seen.sum()), values)

    def measure(
        self, said: Sequence[Said], examples: Tagged, features: Features
    ) -> dict[str, float]:
        """Precision, recall and F1 of spans, and accuracy of tags.

        Words beyond the length limit count as untagged.
        """
        assert isinstance(features, Sentences)
        names, predicted = examples.label_names, list[list[str]]()
        for i, tags in enumerate(value for one in said for value in one.values):
            row = [OUTSIDE] * len(examples.tags[i])
            for word, tag in zip(features.words[i], tags, strict=True):
                row[word] = names[tag]
            predicted.append(row)
        truth = [[names[tag] for tag in tags] for tags in examples.tags]
        return self.in_order(span_scores(truth, predicted))


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


def _first_pieces(words: Iterable[int | None]) -> list[int | None]:
    """The word of each piece that is the first of one; None for all others."""
    found, before = list[int | None](), None
    for word in words:
        found.append(None if word == before else word)
        before = word
    return found


def _wrong(word: object, tag: object) -> str:
    """What is wrong with a token and its tag; empty where nothing is."""
    if not isinstance(word, str) or not word:
        return f"the token {short(word)} is not a word; take it out."
    if not isinstance(tag, str) or not tag:
        return f"the tag {short(tag)} of {short(word)} is not a name; write O, B-... or I-..."
    prefix, dash, kind = tag.partition("-")
    if tag == OUTSIDE or (prefix in ("B", "I") and dash and kind):
        return ""
    return (
        f"the tag {short(tag)} of {short(word)} is not BIO: write O outside of entities, B-... "
        f"for the first token of one and I-... for the others."
    )


def _tagged(
    sentences: list[list[str]],
    tags: list[list[str]],
    source: str,
    names: tuple[str, ...] | None = None,
) -> Tagged:
    if names is None:
        kinds = sorted({tag[2:] for row in tags for tag in row if tag != OUTSIDE})
        names = (OUTSIDE, *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI"))
    if len(names) < 2:
        raise ValueError(
            f"{source}: every tag is {OUTSIDE}, so that there is nothing to find; are these the "
            f"right columns? See {listing(['--tokens-column', '--tags-column'])}."
        )
    index = {name: i for i, name in enumerate(names)}
    numbers = [[index[tag] for tag in row] for row in tags]
    return Tagged(sentences, numbers, names, f"{source}, {counted(len(sentences), 'sentence')}")
