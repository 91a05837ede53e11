"""Sentence embeddings pruned with texts alone, and measured on tasks that they never saw.

all-MiniLM-L6-v2 learns the embeddings that it gave before: of sentences of STS-B's and SST-2's
training parts and of BBC news, without a label. It is measured on STS-B's test part (Spearman of
cosines), on MRPC's (average precision of paraphrases), and by what questions find: a paragraph of
XQuAD's English part, and test questions of BANKING77 of the same intent. Of these nothing was
trained on. The dense model is measured alike. The plan is protocols/embeddings.yaml;
benchmarks/plans.py says how its runs are made and kept.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, plans
from benchmarks.log import Line, Log
from benchmarks.measured import markdown, percent
from sentei import report as reports
from sentei.compare.runs import Run
from sentei.files import write_text
from sentei.models.demo import DEMO
from sentei.run.evaluate import evaluate_saved
from sentei.run.options import settings_from
from sentei.tasks.demo import load_demo

LOG = Log("embeddings")

PARTS: Final = {"stsb": 8_000, "sst2": 2_400, "bbc": 2_400}
"""Training sentences of each source."""

WORDS: Final = range(6, 31)
"""Words of a training sentence of SST-2, whose rows are phrases, and of BBC news."""

INTENT: Final = {"queries": 5, "passages": 10}
"""Test questions of BANKING77 of each intent: what is asked, and what is found."""

LENGTH: Final = 256
"""Tokens of a text that is measured: as many as the model's own files say."""

DENSE: Final = {"run": "dense"}


@dataclass(frozen=True)
class Test:
    """What a model is measured on: ``rows(data)`` are its evaluation rows."""

    title: str
    metric: str
    rows: Callable[[Path], Iterable[dict[str, Any]]]


def _table(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [*csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def stsb(data: Path) -> Iterable[dict[str, Any]]:
    for row in _table(data / "stsb" / "sts-test.csv"):
        yield {"sentence1": row[5], "sentence2": row[6], "score": float(row[4])}


def mrpc(data: Path) -> Iterable[dict[str, Any]]:
    for row in _table(data / "mrpc" / "msr_paraphrase_test.txt"):
        yield {"sentence1": row[3], "sentence2": row[4], "score": int(row[0])}


def xquad(data: Path) -> Iterable[dict[str, Any]]:
    articles = json.loads((data / "xquad_en" / "xquad.en.json").read_text("utf-8"))["data"]
    for paragraph in (one for article in articles for one in article["paragraphs"]):
        for question in paragraph["qas"]:
            yield {"query": question["question"], "positive": paragraph["context"]}


def banking77(data: Path) -> Iterable[dict[str, Any]]:
    with (data / "banking77" / "test.csv").open(encoding="utf-8", newline="") as file:
        rows = [*csv.DictReader(file)]
    for intent in sorted({row["category"] for row in rows}):
        texts = [row["text"] for row in rows if row["category"] == intent]
        passages = texts[: INTENT["passages"]]
        for query in texts[INTENT["passages"] :][: INTENT["queries"]]:
            for passage in passages:
                yield {"query": query, "positive": passage}


TESTS: Final = {
    "stsb": Test("STS-B test, 1,379 pairs", "spearman", stsb),
    "mrpc": Test("MRPC test, 1,725 pairs", "average_precision", mrpc),
    "xquad": Test("XQuAD, 1,190 questions, 240 paragraphs", "ndcg@10", xquad),
    "banking77": Test("BANKING77 test, 385 questions, 770 others", "recall@10", banking77),
}
"""By name, the headline first."""


# ------------------------------------------------------------------------------------------- texts


def texts(data: Path) -> list[str]:
    """The training sentences, none of which is in a test."""
    rows = (row for test in TESTS.values() for row in test.rows(data))
    tests = {str(value) for row in rows for value in row.values()}
    sources: dict[str, Iterable[str]] = {
        "stsb": (text for row in _table(data / "stsb" / "sts-train.csv") for text in row[5:7]),
        "sst2": (row[0] for row in _table(data / "sst2" / "train.tsv")[1:]),
        "bbc": (text for part in load_demo() for article in part.texts for text in _cut(article)),
    }
    chosen = dict[str, None]()
    for name, source in sources.items():
        known = sorted({text.strip() for text in source} - tests - chosen.keys())
        if name != "stsb":
            known = [text for text in known if len(text.split()) in WORDS]
        chosen |= dict.fromkeys(random.Random(0).sample(known, PARTS[name]))
    return [*chosen]


def _cut(article: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+|\n+", article)


# ----------------------------------------------------------------------------------------- measure


def benchmark() -> plans.Benchmark:
    return plans.Benchmark(
        protocol="embeddings",
        log=LOG,
        key=lambda run: {"run": run.name},
        line=_line,
        settings=_settings,
        write=_write,
        start=_start,
    )


def _settings(name: str, task: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    train, test = work / "data" / "embeddings" / "train.jsonl", _file("stsb", data, work)
    if not train.is_file():
        _lines(train, ({"text": text} for text in texts(data)))
    return {**task, "train": str(train), "eval": str(test)}


def _file(name: str, data: Path, work: Path) -> Path:
    """The evaluation file of a test, written where it is not there."""
    file = work / "data" / "embeddings" / f"{name}.jsonl"
    if not file.is_file():
        _lines(file, TESTS[name].rows(data))
    return file


def _lines(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))


def _line(run: Run, data: Path) -> Line:
    work = run.folder.parents[5]  # WORK/embeddings/runs/TASK/RECIPE/SPARSITY/seedN
    report = reports.read(run.folder)
    metrics = {"stsb": report.sparse["spearman"]}
    metrics |= _measure(str(run.folder / "model"), data, work, but="stsb")
    return {
        "role": run.role,
        "recipe": run.recipe,
        "sparsity": run.sparsity,
        "seed": run.seed,
        "metrics": metrics,
        **plans.settings_of(run),
    }


def _start(tasks: set[str], data: Path, work: Path) -> None:
    """Measure the dense model, once."""
    if LOG.find(DENSE) is None:
        LOG.add({**DENSE, "role": "dense", "metrics": _measure(DEMO, data, work)})


def _measure(model: str, data: Path, work: Path, but: str = "") -> dict[str, float]:
    """The headline of each test."""
    metrics = {}
    for name, test in TESTS.items():
        if name != but:
            file = str(_file(name, data, work))
            options = {"model": model, "kind": "embeddings", "eval": file, "max_length": LENGTH}
            metrics[name] = evaluate_saved(settings_from(options, {})).metrics[test.metric]
    return metrics


# ------------------------------------------------------------------------------------------- table


def table(lines: list[Line]) -> str:
    """A row for the dense model and for each recipe at a sparsity, a mean over seeds, in %."""
    dense = next((line["metrics"] for line in lines if line["run"] == DENSE["run"]), None)
    groups: dict[tuple[float, int, str], list[Line]] = {}
    for line in lines:
        if line["run"] != DENSE["run"]:
            key = line["sparsity"], line["steps"], line["recipe"]
            groups.setdefault(key, []).append(line)
    head = ["", "steps", "seeds", *(f"{name} {test.metric}" for name, test in TESTS.items())]
    rows = [["dense", "", "", *(percent(dense[name]) for name in TESTS)]] if dense else []
    for (sparsity, steps, recipe), runs in sorted(groups.items()):
        cells = [_cell([run["metrics"][name] for run in runs], dense, name) for name in TESTS]
        rows.append([f"{recipe} {sparsity:.0%}", f"{steps:,}", str(len(runs)), *cells])
    return markdown(head, rows)


def _cell(values: list[float], dense: dict[str, float] | None, name: str) -> str:
    """A mean, and how far it is from the dense model's."""
    mean = sum(values) / len(values)
    return percent(mean) + (f" ({100 * (mean - dense[name]):+.1f})" if dense else "")


def _write() -> str:
    tables = table(LOG.lines)
    about = [f"- **{name}**: {test.title}; {test.metric}." for name, test in TESTS.items()]
    text = [
        "# embeddings",
        "",
        "all-MiniLM-L6-v2 pruned with 12,800 sentences alone, which it learns to embed as before; "
        "in %, means over seeds, and in brackets the difference to the dense model. "
        "`python -m benchmarks.embeddings --data ...`; settings, machine, versions and commit of "
        "each run: its line in embeddings.jsonl. Nothing that is measured was trained on.",
        "",
        tables,
        "",
        *about,
    ]
    (machine.RESULTS / "embeddings.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    return tables


if __name__ == "__main__":
    plans.make(benchmark(), plans.parser(__doc__).parse_args())
