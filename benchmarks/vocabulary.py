"""all-MiniLM-L6-v2 with no more tokens than a task's training texts use.

The training texts make the vocabulary, the evaluation texts say what it does to texts that were not
seen: how many are split otherwise, and into how many tokens. The model is in fp32, and nothing is
trained.

``--runs`` names folders of finished runs instead, such as those that ``benchmarks.quality`` leaves:
each run's model is cut to its training texts, and measured on its evaluation texts before and
after.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterable
from itertools import starmap
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

from benchmarks import corpora, machine
from sentei.models.demo import demo_model_path
from sentei.models.loading import load_model, saved_labels
from sentei.run.evaluate import evaluate
from sentei.run.settings import Settings
from sentei.run.vocabulary import Texts, read_texts
from sentei.shrink import save, shrink_vocabulary
from sentei.shrink.vocabulary.tokens import encode
from sentei.tasks.classification import Classification
from sentei.tasks.corpus import load_evaluation

TASKS = {"SST-2": "sst2-full", "MRPC": "mrpc", "STS-B": "stsb", "BANKING77": "banking77"}
HEAD = (
    *("training texts of", "texts", "tokens", "parameters", "file, MB"),
    *("evaluation texts", "split otherwise", "tokens in each, before", "after"),
)


def texts_of(name: str, data: Path, folder: Path) -> tuple[Texts, Texts]:
    """Training and evaluation texts, pairs where the task has them."""
    corpus = corpora.CORPORA[name]
    task = Classification(text_column="text", pair_column=None if corpus.pair is None else "pair")
    train, evaluation = corpora.write(corpus, data, folder)
    return read_texts(train, task), read_texts(evaluation, task)


def measure(train: Texts, evaluation: Texts, folder: Path) -> dict[str, Any]:
    """The model cut to some texts, and how it splits others."""
    source = demo_model_path()
    model = AutoModel.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    smaller, fewer, report = shrink_vocabulary(model, tokenizer, train)
    save(model, folder / "before")
    save(smaller, folder / "after", tokenizer=fewer)
    before, after = (folder / name / "model.safetensors" for name in ("before", "after"))
    split = [
        [encoding.tokens for encoding in encode(each.backend_tokenizer, evaluation)]
        for each in (tokenizer, fewer)
    ]
    return {
        **report.model_dump(),
        "file_before": before.stat().st_size,
        "file_after": after.stat().st_size,
        "evaluation_texts": len(evaluation),
        "evaluation_changed": sum(one != other for one, other in zip(*split, strict=True)),
        "evaluation_tokens_before": statistics.fmean(map(len, split[0])),
        "evaluation_tokens_after": statistics.fmean(map(len, split[1])),
    }


def row(name: str, counts: dict[str, Any]) -> str:
    """A line of the table."""
    cells = (
        name,
        f"{counts['texts']:,}",
        f"{counts['tokens_after']:,}",
        f"{counts['parameters_after']:,}",
        f"{counts['file_after'] / 1e6:.1f}",
        f"{counts['evaluation_texts']:,}",
        f"{100 * counts['evaluation_changed'] / counts['evaluation_texts']:.1f} %",
        f"{counts['evaluation_tokens_before']:.2f}",
        f"{counts['evaluation_tokens_after']:.2f}",
    )
    return _line(cells)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def measure_run(run: Path) -> dict[str, Any]:
    """A run's model as it is, and cut to the texts that it was trained on."""
    settings = Settings.read(run / "run.yaml")
    task, training, folder = settings.task, settings.training, str(run / "model")
    assert isinstance(task, Classification) and task.train is not None
    corpus = load_evaluation(task, saved_labels(folder), training.seed)
    model, tokenizer = load_model(folder, corpus.head)[0], AutoTokenizer.from_pretrained(folder)
    texts = read_texts(task.train, task)
    smaller, fewer, report = shrink_vocabulary(model, tokenizer, texts)
    scores = [
        evaluate(one, processor, corpus, corpus.evaluation_features(processor), training.batch_size)
        for one, processor in ((model, tokenizer), (smaller, fewer))
    ]
    metric = corpus.headline
    return {
        **report.model_dump(),
        "metric": metric,
        "evaluation_texts": len(corpus.evaluation),
        "before": scores[0][metric],
        "after": scores[1][metric],
    }


def row_of_run(name: str, counts: dict[str, Any]) -> str:
    cells = (
        name,
        f"{counts['metric']}, {counts['evaluation_texts']:,}",
        f"{counts['texts']:,}",
        f"{counts['tokens_after']:,}",
        f"{counts['parameters_before'] / 1e6:.1f} M",
        f"{counts['parameters_after'] / 1e6:.1f} M",
        f"{100 * counts['before']:.1f}",
        f"{100 * counts['after']:.1f}",
    )
    return _line(cells)


def of_runs(runs: list[Path]) -> None:
    """The table of runs."""
    counts = {"/".join(run.parts[-4:]): measure_run(run) for run in runs}
    head = (
        *("run", "metric, texts", "training texts", "tokens", "parameters before", "after"),
        *("metric before, %", "after, %"),
    )
    rows = [
        _line(head),
        "|---" * len(head) + "|",
        *starmap(row_of_run, counts.items()),
    ]
    machine.write("vocabulary_runs", "\n".join(rows), {"found": counts})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of the benchmark data")
    source.add_argument("--runs", type=Path, nargs="+", help="folders of finished runs")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    if arguments.runs:
        of_runs(arguments.runs)
        return
    data = arguments.data
    counts: dict[str, Any] = {}
    for name, corpus in TASKS.items():
        with tempfile.TemporaryDirectory() as folder:
            train, evaluation = texts_of(corpus, data, Path(folder) / "data")
            counts[name] = measure(train, evaluation, Path(folder))
    whole = next(iter(counts.values()))
    rows = [
        _line(HEAD),
        "|---" * len(HEAD) + "|",
        f"| (the whole model) | | {whole['tokens_before']:,} | {whole['parameters_before']:,} | "
        f"{whole['file_before'] / 1e6:.1f} | | | | |",
        *starmap(row, counts.items()),
    ]
    packages = machine.versions("transformers", "tokenizers")
    machine.write("vocabulary", "\n".join(rows), {"packages": packages, "found": counts})


if __name__ == "__main__":
    main()
