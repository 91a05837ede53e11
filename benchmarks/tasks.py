"""Every kind of task pruned: entities, answers, images and running text.

For each a dense model is trained ("start"); all others train that model for as many steps again or
more, dense or pruned, with the same data, batch and learning rate and every method's own defaults.
The image and the language model are small and trained here from nothing; the others are
all-MiniLM-L6-v2. The plan is protocols/tasks.yaml; benchmarks/plans.py says how its runs are made
and kept.
"""

from __future__ import annotations

import json
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
)

from benchmarks import machine, plans, subjqa
from benchmarks.log import Line, Log
from benchmarks.measured import markdown
from sentei import report as reports
from sentei import serialization
from sentei.compare.execute import run_here
from sentei.compare.runs import Run, unpruned
from sentei.locks import Lease
from sentei.models.demo import DEMO
from sentei.records import REFERENCES, RunReport
from sentei.run.options import settings_from
from sentei.tasks.demo import load_demo

LOG = Log("tasks", ("task", "method", "sparsity", "seed"))


@dataclass(frozen=True)
class Task:
    """One task: ``make(data, folder)`` writes its files and gives the settings that name them.

    ``metrics`` are shown.
    """

    title: str
    make: Callable[[Path, Path], dict[str, Any]]
    metrics: tuple[str, ...]


def entities(data: Path, folder: Path) -> dict[str, Any]:
    """WNUT-17 as it was published; evaluated on its test part."""
    source = data / "wnut17"
    test = source / "emerging.test.annotated"
    return {"model": DEMO, "train": source / "wnut17train.conll", "eval": test}


LONGEST = 600
"""Characters of the longest review that is taken."""


def answers(data: Path, folder: Path) -> dict[str, Any]:
    """SubjQA's questions that have an answer, in reviews of some length at most."""
    for part in ("train", "test"):
        corpus = subjqa.convert(data / "subjqa", part)
        for article in corpus["data"]:
            article["paragraphs"] = [
                paragraph
                for paragraph in article["paragraphs"]
                if len(paragraph["context"]) <= LONGEST and paragraph["qas"][0]["answers"]
            ]
        (folder / f"{part}.json").write_text(json.dumps(corpus), encoding="utf-8")
    return {"model": DEMO, "train": folder / "train.json", "eval": folder / "test.json"}


PICTURES = {"train": 1000, "test": 200}
"""Of each class."""


def images(data: Path, folder: Path) -> dict[str, Any]:
    """The first of each class of CIFAR-10 (JPEG), and a small ViT with random weights."""
    for part, most in PICTURES.items():
        taken: Counter[str] = Counter()
        with tarfile.open(data / "cifar10_jpeg" / f"{part}.tar.gz") as archive:
            for member in archive:
                kind = Path(member.name).parent.name
                if member.isfile() and taken[kind] < most:
                    taken[kind] += 1
                    archive.extract(member, folder, filter="data")
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=32,
        patch_size=4,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=512,
    )
    ViTForImageClassification(config).save_pretrained(folder / "vit")
    return {"model": str(folder / "vit"), "train": folder / "train", "eval": folder / "test"}


def language(data: Path, folder: Path) -> dict[str, Any]:
    """BBC news, a tokenizer made of its training part, and a small Llama with random weights."""
    for name, examples in zip(("train", "eval"), load_demo(), strict=True):
        rows = (json.dumps({"text": text}) for text in examples.texts)
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
        if name == "train":
            pieces = ByteLevelBPETokenizer()
            pieces.train_from_iterator(examples.texts, vocab_size=4096, special_tokens=["</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, eos_token="</s>")
    tokenizer.save_pretrained(folder / "llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        intermediate_size=512,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    model = str(folder / "llama")
    return {"model": model, "train": folder / "train.jsonl", "eval": folder / "eval.jsonl"}


TASKS = {
    "entities": Task(
        title="WNUT-17, 3,394 sentences; test, 1,287; all-MiniLM-L6-v2",
        make=entities,
        metrics=("f1",),
    ),
    "answers": Task(
        title=f"SubjQA, answerable, reviews of {LONGEST} characters at most; test; "
        "all-MiniLM-L6-v2",
        make=answers,
        metrics=("f1", "exact_match"),
    ),
    "images": Task(
        title="CIFAR-10 (JPEG), 10,000 images; test, 2,000; ViT, from nothing",
        make=images,
        metrics=("accuracy",),
    ),
    "language": Task(
        title="BBC news; Llama, from nothing",
        make=language,
        metrics=("perplexity",),
    ),
}


def benchmark() -> plans.Benchmark:
    return plans.Benchmark(
        protocol="tasks",
        log=LOG,
        key=lambda run: _key(run.task, run.recipe, run.sparsity, run.seed),
        line=_line,
        settings=_settings,
        write=_write,
        start=_start,
    )


def _key(task: str, method: str, sparsity: float, seed: int) -> Line:
    return {"task": task, "method": method, "sparsity": sparsity, "seed": seed}


def _settings(name: str, task: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    """The files of a task, and where the dense model lies that all its runs start from."""
    task.pop("start")
    return {**task, **_files(name, data, work), "model": str(_start_folder(name, work) / "model")}


def _files(name: str, data: Path, work: Path) -> dict[str, str]:
    folder = work / "data" / name
    folder.mkdir(parents=True, exist_ok=True)
    return {key: str(value) for key, value in TASKS[name].make(data, folder).items()}


def _start_folder(name: str, work: Path) -> Path:
    return work / "start" / name


def _start(names: set[str], data: Path, work: Path) -> None:
    """Train the dense models of some tasks, which have a learning rate of their own."""
    plan = plans.protocol("tasks")
    for name in sorted(names):
        task, seed = plan["tasks"][name], plan["seeds"][0]
        start = task.pop("start")
        training = {**task, **start}
        options = {**plan["settings"], **training, **_files(name, data, work), "seed": seed}
        settings = settings_from(options, serialization.to_dict(unpruned()))
        out = _start_folder(name, work)
        lease = Lease(out / ".lease", plans.PATIENCE)
        while not (out / "report.json").is_file():
            if not lease.take():
                time.sleep(5.0)
                continue
            with lease:
                if not (out / "report.json").is_file():  # by another, between look and lease
                    run_here(out, settings, check=lease.check)
        key = _key(name, "start", 0.0, seed)
        if LOG.find(key) is None:
            LOG.add({**key, **_measured(reports.read(out)), "training": training})


def _line(run: Run, data: Path) -> Line:
    training = plans.protocol("tasks")["tasks"][run.task]
    training.pop("start")
    return {**_measured(reports.read(run.folder)), "training": training}


def _measured(report: RunReport) -> Line:
    return {
        "metrics": report.sparse,
        "steps": report.pruning.total_steps,
        "pruned": report.pruning.pruned,
        "prunable": report.pruning.prunable,
        "parameters": report.pruning.parameters,
        "train_examples": report.train_examples,
        "eval_examples": report.eval_examples,
        "seconds": report.seconds["train"],
    }


def table(lines: list[Line]) -> str:
    """A row for each metric of a task, and what its numbers were measured on."""

    def place(column: tuple[str, float]) -> tuple[float, str]:
        method, sparsity = column
        return (REFERENCES.index(method) - 2 if method in REFERENCES else sparsity), method

    columns = sorted({(line["method"], line["sparsity"]) for line in lines}, key=place)
    head = [method if not sparsity else f"{method} {sparsity:.0%}" for method, sparsity in columns]
    rows, notes = [], []
    for name, task in TASKS.items():
        here = {(c["method"], c["sparsity"]): c for c in lines if c["task"] == name}
        for metric in task.metrics if here else ():
            times = 1 if metric == "perplexity" else 100
            cells = [
                f"{times * here[column]['metrics'][metric]:.1f}" if column in here else ""
                for column in columns
            ]
            rows.append([name, metric, *cells])
        if here:
            notes.append(_note(name, list(here.values())))
    return "\n".join([markdown(["task", "metric", *head], rows), "", *notes])


def _note(name: str, lines: list[Line]) -> str:
    one = lines[0]
    steps = {("start" if c["method"] == "start" else "others"): c["steps"] for c in lines}
    settings = ", ".join(f"{key} {value}" for key, value in one["training"].items())
    return (
        f"- **{name}**: {TASKS[name].title}. {one['train_examples']:,} examples to train on, "
        f"{one['eval_examples']:,} to evaluate; {one['prunable']:,} of {one['parameters']:,} "
        f"parameters prunable; steps: "
        + ", ".join(f"{who} {count:,}" for who, count in steps.items())
        + f" ({settings})."
    )


def _write() -> str:
    tables = table(LOG.lines)
    text = [
        "# tasks",
        "",
        "Unstructured pruning by kind of task, one seed; shares in %, perplexity as it is (lower "
        "is better). Start: the dense model. All others train it further, all of a task for the "
        "same steps with the same learning rate, dense or pruned. `python -m benchmarks.tasks "
        "--data ...`; machine, versions and commit of each run: its line in tasks.jsonl.",
        "",
        tables,
    ]
    (machine.RESULTS / "tasks.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    return tables


if __name__ == "__main__":
    plans.make(benchmark(), plans.parser(__doc__).parse_args())
