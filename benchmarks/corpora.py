"""The benchmark data sets as files that Sentei reads: one JSON object a line, text, pair, label.

The originals come as they were published: some without header, none quoted.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

csv.field_size_limit(1 << 24)


@dataclass(frozen=True)
class Corpus:
    """One data set: files of training and evaluation rows, and the columns of a row."""

    task: str
    train: tuple[str, ...]
    evaluation: str
    text: int
    pair: int | None
    label: int


CORPORA = {
    "mrpc": Corpus(
        "mrpc", ("mrpc/msr_paraphrase_train.txt",), "mrpc/msr_paraphrase_test.txt", 3, 4, 0
    ),
    "stsb": Corpus("stsb", ("stsb/sts-train.csv",), "stsb/sts-dev.csv", 5, 6, 4),
}
"""By name. MRPC is the original corpus (4,076 pairs, tested on its 1,725), not GLUE's cut of it."""


def write(corpus: Corpus, data: Path, out: Path) -> tuple[Path, Path]:
    """Write ``train.jsonl`` and ``eval.jsonl`` of a corpus below ``data`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    parts = (("train.jsonl", corpus.train), ("eval.jsonl", (corpus.evaluation,)))
    for name, sources in parts:
        with (out / name).open("w", encoding="utf-8") as file:
            for source in sources:
                for row in _rows(data / source):
                    file.write(json.dumps(_example(corpus, row)) + "\n")
    return out / "train.jsonl", out / "eval.jsonl"


def _rows(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def _example(corpus: Corpus, row: list[str]) -> dict[str, str | float]:
    label = row[corpus.label]
    example: dict[str, str | float] = {"text": row[corpus.text]}
    if corpus.pair is not None:
        example["pair"] = row[corpus.pair]
    example["label"] = float(label) if corpus.task == "stsb" else label
    return example
