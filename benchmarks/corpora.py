"""The benchmark data sets as files that Sentei reads: one JSON object a line, text, pair, label.

The originals come as they were published: some without header, most not quoted.
"""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sentei.files import write_text

csv.field_size_limit(1 << 24)

Row = list[str]


@dataclass(frozen=True)
class Corpus:
    """One data set: its files of training and evaluation rows, and the columns of a row.

    ``rows`` is how many rows of the training files are taken, drawn once for all; None takes all.
    Without an evaluation file a fifth of these is set aside, all rows of one text on one side.
    """

    train: tuple[str, ...]
    evaluation: str | None
    text: int
    pair: int | None
    label: int
    header: bool = True
    quoted: bool = False
    number: bool = False
    rows: int | None = None


CORPORA = {
    "mrpc": Corpus(
        ("mrpc/msr_paraphrase_train.txt",), "mrpc/msr_paraphrase_test.txt", 3, 4, 0, header=False
    ),
    "mrpc-train": Corpus(("mrpc/msr_paraphrase_train.txt",), None, 3, 4, 0, header=False),
    "stsb": Corpus(("stsb/sts-train.csv",), "stsb/sts-dev.csv", 5, 6, 4, header=False, number=True),
    "stsb-train": Corpus(("stsb/sts-train.csv",), None, 5, 6, 4, header=False, number=True),
    "sst2": Corpus(("sst2/train.tsv",), "sst2/test-labeled.tsv", 0, None, 1, rows=16_000),
    "sst2-train": Corpus(("sst2/train.tsv",), None, 0, None, 1, rows=10_000),
    "sst2-full": Corpus(("sst2/train.tsv",), "sst2/test-labeled.tsv", 0, None, 1),
    "rte": Corpus(("rte/train.tsv",), "rte/dev.tsv", 1, 2, 3),
    "cola": Corpus(
        ("cola/train_part1.tsv", "cola/train_part2.tsv"), "cola/dev.tsv", 3, None, 1, header=False
    ),
    "qnli-dev-split": Corpus(("qnli/dev.tsv",), None, 1, 2, 3),
    "banking77": Corpus(("banking77/train.csv",), "banking77/test.csv", 0, None, 1, quoted=True),
    "banking77-train": Corpus(("banking77/train.csv",), None, 0, None, 1, quoted=True),
}
"""By name. MRPC is the original corpus (4,076 pairs, tested on its 1,725), not GLUE's cut of it;
SST-2 is tested on its 1,821 labelled test sentences; QNLI's training questions are not at hand."""


def write(corpus: Corpus, data: Path, out: Path) -> tuple[Path, Path]:
    """Write ``train.jsonl`` and ``eval.jsonl`` of a corpus below ``data`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    train = [row for name in corpus.train for row in _rows(corpus, data / name)]
    if corpus.rows:
        train = random.Random(0).sample(train, corpus.rows)
    if corpus.evaluation:
        evaluation = list(_rows(corpus, data / corpus.evaluation))
    else:
        train, evaluation = _split(corpus, train)
    for name, rows in (("train.jsonl", train), ("eval.jsonl", evaluation)):
        lines = (json.dumps(_example(corpus, row)) + "\n" for row in rows)
        write_text(out / name, "".join(lines))  # another worker may be writing, or reading
    return out / "train.jsonl", out / "eval.jsonl"


def _rows(corpus: Corpus, path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows: Iterable[Row] = (
            csv.reader(file)
            if corpus.quoted
            else csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        )
        yield from itertools.islice(rows, int(corpus.header), None)


def _split(corpus: Corpus, rows: list[Row]) -> tuple[list[Row], list[Row]]:
    texts = sorted({row[corpus.text] for row in rows})
    aside = set(random.Random(0).sample(texts, len(texts) // 5))
    train = [row for row in rows if row[corpus.text] not in aside]
    return train, [row for row in rows if row[corpus.text] in aside]


def _example(corpus: Corpus, row: Row) -> dict[str, str | float]:
    label = row[corpus.label]
    example: dict[str, str | float] = {"text": row[corpus.text]}
    if corpus.pair is not None:
        example["pair"] = row[corpus.pair]
    example["label"] = float(label) if corpus.number else label
    return example
