"""Heads and neurons pruned and removed: what is lost. What is gained: ``benchmarks.latency``.

all-MiniLM-L6-v2 is fine-tuned on 8,000 training sentences of SST-2 ("start"). Every cell trains
that model for as many steps again: dense, or while heads and neurons are pruned, the same share of
every layer. `sentei shrink` then removes them; what is measured is the model that was written,
loaded from its folder. Cells are appended to results/structured.jsonl as they finish; those already
there are skipped.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks import cells, machine
from sentei import shrink
from sentei.models.demo import DEMO
from sentei.models.inputs import example
from sentei.models.loading import saved_labels
from sentei.models.quiet import quiet_transformers
from sentei.run.evaluate import evaluate
from sentei.run.recipes import make_recipe
from sentei.run.settings import Settings
from sentei.tasks.corpus import load_evaluation

START, DENSE = "start", "dense"
SENTENCES, EPOCHS = 8000, 1
TRAINING: dict[str, Any] = {"batch_size": 16, "max_length": 128, "text_column": "sentence"}
"""Besides these: 10 % warm-up, linear decay, clip 1."""
KEY = ("method", "sparsity", "budget", "longer", "learning_rate", "teacher", "seed")
BUDGETS: dict[str, list[str]] = {
    "none": [],
    "uniform": ["budget=uniform", "budget.multiple=2"],
    "global": ["budget=global"],
}
LENGTH = 128
"""Tokens of a sentence that is counted and timed."""


def subset(data: Path, work: Path) -> Path:
    """The training sentences, chosen by lot."""
    out = work / "train.tsv"
    if not out.is_file():
        work.mkdir(parents=True, exist_ok=True)
        head, *rows = (data / "sst2" / "train.tsv").read_text(encoding="utf-8").splitlines()
        chosen = random.Random(0).sample(rows, SENTENCES)
        out.write_text("\n".join([head, *chosen]) + "\n", encoding="utf-8")
    return out


def folder_of(key: dict[str, Any], work: Path) -> Path:
    return work / "-".join(str(key[name]) for name in KEY)


def cell(key: dict[str, Any], arguments: Any) -> dict[str, Any]:
    work: Path = arguments.work
    plain = key["method"] in (START, DENSE)
    start = folder_of(plain_key(START, arguments), work) / "model"
    given: dict[str, Any] = {
        **TRAINING,
        "model": DEMO if key["method"] == START else str(start),
        "train": subset(arguments.data, work),
        "eval": arguments.data / "sst2" / "dev.tsv",
        "epochs": EPOCHS * key["longer"],
        "learning_rate": key["learning_rate"],
        "seed": key["seed"],
    }
    if key["teacher"]:
        given["teacher"] = str(start)
    recipe = make_recipe(
        "magnitude" if plain else key["method"],
        key["sparsity"],
        None,
        BUDGETS[key["budget"]],
        pattern=None if plain else "head+neuron",
        teacher=key["teacher"],
    )
    out = folder_of(key, work)
    report = cells.train(given, recipe, out)
    found = {
        **key,
        "steps": report.pruning.total_steps,
        "seconds": report.seconds["train"],
        "dev": report.sparse["accuracy"],
        "test": accuracy(shrink.load(out / "model"), out, arguments.data),
    }
    return found if plain else found | shrunk(out, arguments.data)


def accuracy(model: PreTrainedModel, run: Path, data: Path) -> float:
    """On the labelled test sentences."""
    settings = Settings.read(run / "run.yaml")
    task = settings.task.model_copy(update={"eval": data / "sst2" / "test-labeled.tsv"})
    folder = str(run / "model")
    corpus = load_evaluation(task, saved_labels(folder), settings.training.seed)
    processor = corpus.load_processor(folder)
    features = corpus.evaluation_features(processor)
    return evaluate(model, processor, corpus, features, settings.training.batch_size)["accuracy"]


@torch.no_grad()
def shrunk(run: Path, data: Path) -> dict[str, Any]:
    """Remove the heads and neurons, write what is left beside the run and measure that."""
    model = shrink.load(run / "model")
    smaller, report = shrink.shrink(model, length=LENGTH)
    shrink.save(smaller, run / "small", files=run / "model")
    smaller = shrink.load(run / "small")
    torch.manual_seed(0)
    inputs = example(model, 8, LENGTH)
    difference = (model(**inputs).logits - smaller(**inputs).logits).abs().max()
    return {
        "shrunk_test": accuracy(smaller, run, data),
        "largest_difference_of_logits": float(difference),
        "heads": report.units("head"),
        "neurons": report.units("neuron"),
        "structures": [[s.unit, s.layer, s.before, s.after] for s in report.structures],
        "parameters": (report.parameters_before, report.parameters_after),
        "flops": (report.flops_before, report.flops_after),
        "stock": report.stock,
    }


def plain_key(method: str, arguments: Any) -> dict[str, Any]:
    """Of the start and the dense model, on which the options for pruning have no bearing."""
    rest = {"sparsity": 0.0, "budget": "none", "longer": 1.0, "teacher": False}
    return {"method": method, **rest, "learning_rate": 1e-4, "seed": arguments.seed}


def keys(arguments: Any) -> list[dict[str, Any]]:
    found = []
    for method in arguments.methods:
        if method == START:
            found.append(plain_key(START, arguments))
            continue
        for sparsity in [0.0] if method == DENSE else arguments.sparsity:
            rest = {name: getattr(arguments, name) for name in KEY[2:]}
            found.append({"method": method, "sparsity": sparsity, **rest})
            if method == DENSE:
                found[-1] |= {"budget": "none", "teacher": False}
    return found


def label(found: dict[str, Any]) -> str:
    extra = [f"{found['longer']:g} times the steps"] if found["longer"] != 1 else []
    extra += [f"learning rate {found['learning_rate']:g}"] if found["learning_rate"] != 1e-4 else []
    extra += ["global budget"] if found["budget"] == "global" else []
    extra += ["a teacher"] if found["teacher"] else []
    method: str = found["method"]
    return method + (f" ({', '.join(extra)})" if extra else "")


def table(log: cells.Log) -> list[str]:
    lines = [
        "| model | pruned | dev | test | test, shrunk | heads | neurons | weights | operations |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = (START, DENSE)
    for found in sorted(log.cells, key=lambda c: (c["method"] not in order, c["sparsity"])):
        row = [label(found), f"{found['sparsity']:.0%}" if found["sparsity"] else ""]
        row += [f"{100 * found[part]:.1f}" for part in ("dev", "test")]
        if "structures" in found:
            row.append(f"{100 * found['shrunk_test']:.1f}")
            row += [f"{found['heads'][1]}", f"{found['neurons'][1]:,}"]
            row += [f"{found['parameters'][1] / 1e6:.2f} M", f"{found['flops'][1] / 1e9:.2f} G"]
        else:
            row += [""] * 5
        lines.append("| " + " | ".join(row) + " |")
    before = next((c for c in log.cells if "structures" in c), None)
    if before:
        heads, neurons, parameters, flops = (
            before[name][0] for name in ("heads", "neurons", "parameters", "flops")
        )
        lines += [
            "",
            f"Dense: {heads} heads, {neurons:,} neurons, {parameters / 1e6:.2f} M parameters, "
            f"{flops / 1e9:.2f} G operations.",
        ]
    return lines


def write(log: cells.Log) -> None:
    text = [
        "# structured",
        "",
        f"all-MiniLM-L6-v2 on {SENTENCES:,} training sentences of SST-2, accuracy in %, one "
        "seed: a sentence is 0.11 points of dev (872) and 0.05 of the labelled test set (1,821). "
        f"Start: fine-tuned for {EPOCHS} epoch, batch {TRAINING['batch_size']}, learning rate "
        "1e-4. All others train that model for as many steps again (or as many times more as they "
        "say), dense or while heads and neurons are pruned, the same number in every layer unless "
        "the budget is global. "
        "*Test, shrunk* is the model that `sentei shrink` wrote, loaded from its folder. "
        f"Operations: of the blocks' matrix products, one sentence of {LENGTH} tokens. `python -m "
        "benchmarks.structured --data ...`; machine, versions and commit of each run: its line in "
        "structured.jsonl.",
        "",
        *table(log),
    ]
    (machine.RESULTS / "structured.md").write_text("\n".join(text) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the benchmark data")
    parser.add_argument("--work", type=Path, default=Path("structured"), help="scratch folder")
    parser.add_argument("--methods", nargs="*", default=[START, DENSE, "platon", "magnitude"])
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.5, 0.8])
    parser.add_argument("--budget", choices=["uniform", "global"], default="uniform")
    parser.add_argument("--longer", type=float, default=1.0, help="times the steps")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--teacher", action="store_true", help="learn from the start, too")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    quiet_transformers()
    log = cells.Log("structured", KEY)
    for key in keys(arguments):
        if log.find(key) is None:
            found = cell(key, arguments)
            log.add(found)
            print(label(found), found["sparsity"], found["dev"], found["test"], flush=True)
            write(log)
    write(log)
    print("\n".join(table(log)))


if __name__ == "__main__":
    main()
