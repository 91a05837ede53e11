"""Every kind of task pruned: entities, answers, images and running text.

For each a dense model is trained ("start"); every cell trains that model for as many steps again or
more (``epochs``), dense or pruned, with the same data, batch and learning rate and every method's
own defaults. The image and the language model are small and trained here from nothing; the others
are all-MiniLM-L6-v2. Cells are appended to results/tasks.jsonl as they finish; those already there
are skipped.
"""

from __future__ import annotations

import argparse
import json
import tarfile
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

from benchmarks import cells, machine, subjqa
from sentei.models.demo import DEMO
from sentei.models.quiet import quiet_transformers
from sentei.run.recipes import make_recipe
from sentei.tasks.demo import load_demo

START, DENSE = "start", "dense"
KEY = ("task", "method", "sparsity", "seed")


@dataclass(frozen=True)
class Task:
    """One task.

    ``make(data, folder)`` writes its files and says the settings that name them; ``start`` are the
    settings of the first dense training, ``then`` those of all others; ``metrics`` are shown.
    """

    title: str
    make: Callable[[Path, Path], dict[str, Any]]
    settings: dict[str, Any]
    start: dict[str, Any]
    then: dict[str, Any]
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
        found = subjqa.convert(data / "subjqa", part)
        for article in found["data"]:
            article["paragraphs"] = [
                paragraph
                for paragraph in article["paragraphs"]
                if len(paragraph["context"]) <= LONGEST and paragraph["qas"][0]["answers"]
            ]
        (folder / f"{part}.json").write_text(json.dumps(found), encoding="utf-8")
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
        settings={"kind": "tokens", "batch_size": 8},
        start={"epochs": 2, "learning_rate": 1e-4},
        then={"epochs": 1, "learning_rate": 1e-4},
        metrics=("f1",),
    ),
    "answers": Task(
        title=f"SubjQA, answerable, reviews of {LONGEST} characters at most; test; "
        "all-MiniLM-L6-v2",
        make=answers,
        settings={"kind": "answers", "batch_size": 8, "max_length": 192, "doc_stride": 64},
        start={"epochs": 2, "learning_rate": 1e-4},
        then={"epochs": 2, "learning_rate": 1e-4},
        metrics=("f1", "exact_match"),
    ),
    "images": Task(
        title="CIFAR-10 (JPEG), 10,000 images; test, 2,000; ViT, from nothing",
        make=images,
        settings={"kind": "images", "batch_size": 64, "flip": True, "weight_decay": 0.05},
        start={"epochs": 8, "learning_rate": 1e-3},
        then={"epochs": 3, "learning_rate": 5e-4},
        metrics=("accuracy",),
    ),
    "language": Task(
        title="BBC news; Llama, from nothing",
        make=language,
        settings={"kind": "language", "text_column": "text", "batch_size": 16, "max_length": 128},
        start={"epochs": 3, "learning_rate": 2e-3},
        then={"epochs": 1, "learning_rate": 1e-3},
        metrics=("perplexity",),
    ),
}


def cell(key: dict[str, Any], work: Path, data: Path) -> dict[str, Any]:
    task, plain = TASKS[key["task"]], key["method"] in (START, DENSE)
    folder = work / key["task"]
    folder.mkdir(parents=True, exist_ok=True)
    given = {**task.settings, **task.make(data, folder), "seed": key["seed"]}
    start = folder / f"start-{key['seed']}"
    if key["method"] == START:
        given |= task.start
        out = start
    else:
        given |= {**task.then, "model": str(start / "model")}
        out = folder / "run"
    recipe = make_recipe("magnitude" if plain else key["method"], key["sparsity"], None, [])
    report = cells.train(given, recipe, out)
    return {
        **key,
        "metrics": report.sparse,
        "steps": report.pruning.total_steps,
        "pruned": report.pruning.pruned,
        "prunable": report.pruning.prunable,
        "parameters": report.pruning.parameters,
        "train_examples": report.train_examples,
        "eval_examples": report.eval_examples,
        "training": {**task.settings, **(task.start if key["method"] == START else task.then)},
        "seconds": report.seconds["train"],
    }


def write(log: cells.Log) -> str:
    names = {(c["method"], c["sparsity"]): None for c in log.cells}
    columns = sorted(names, key=lambda n: (n[0] != START, n[0] != DENSE, n[1], n[0]))
    heads = [m if not s else f"{m} {s:.0%}" for m, s in columns]
    lines = ["| task | metric | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    notes = []
    for name, task in TASKS.items():
        here = {(c["method"], c["sparsity"]): c for c in log.cells if c["task"] == name}
        for metric in task.metrics if here else ():
            shares = metric != "perplexity"
            row = [
                f"{here[column]['metrics'][metric] * (100 if shares else 1):.1f}"
                if column in here
                else ""
                for column in columns
            ]
            lines.append(f"| {name} | {metric} | " + " | ".join(row) + " |")
        if here:
            notes.append(note(name, task, list(here.values())))
    table = "\n".join([*lines, "", *notes])
    text = [
        "# tasks",
        "",
        "Unstructured pruning by kind of task, one seed; shares in %, perplexity as it is (lower "
        "is better). Start: the dense model. All others train it further, all of a task for the "
        "same steps with the same learning rate, dense or pruned. `python -m benchmarks.tasks "
        "--data ...`; machine, versions and commit of each run: its line in tasks.jsonl.",
        "",
        table,
    ]
    (machine.RESULTS / "tasks.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    return table


def note(name: str, task: Task, found: list[dict[str, Any]]) -> str:
    """What a row's numbers were measured on."""
    one = found[0]
    steps = {("start" if c["method"] == START else "others"): c["steps"] for c in found}
    settings = ", ".join(f"{key} {value}" for key, value in one["training"].items())
    return (
        f"- **{name}**: {task.title}. {one['train_examples']:,} examples to train on, "
        f"{one['eval_examples']:,} to evaluate; {one['prunable']:,} of {one['parameters']:,} "
        f"parameters prunable; steps: "
        + ", ".join(f"{who} {count:,}" for who, count in steps.items())
        + f" ({settings})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark data")
    parser.add_argument("--work", type=Path, default=Path("tasks"), help="scratch folder")
    parser.add_argument("--tasks", nargs="+", default=[*TASKS], choices=[*TASKS])
    parser.add_argument("--methods", nargs="+", default=[START, DENSE, "platon", "magnitude"])
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.5, 0.8])
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    quiet_transformers()
    log = cells.Log("tasks", KEY)
    for task in arguments.tasks:
        for method in arguments.methods:
            for sparsity in [0.0] if method in (START, DENSE) else arguments.sparsity:
                key = dict(zip(KEY, (task, method, sparsity, arguments.seed), strict=True))
                if log.find(key) is None:
                    found = cell(key, arguments.work, arguments.data)
                    log.add(found)
                    print(key, found["metrics"], f"{found['seconds']:.0f} s", flush=True)
                    write(log)
    print(write(log))


if __name__ == "__main__":
    main()
