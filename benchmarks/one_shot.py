"""Dense fine-tuned models pruned at once, without training: what is left of their metrics.

    python -m benchmarks.one_shot RUN TASK [--examples 1024]

RUN is the folder of a finished run whose model is dense, such as the `start` of a protocol
(``python -m benchmarks.quality first --data DATA --work FOLDER --only 'stsb/start/*'`` leaves it in
FOLDER/first/runs/stsb/start/seed1) or of ``sentei prune --sparsity 0``. TASK is what the table
calls it. Every cell prunes a copy of the model, by inputs of training examples where its score or
reconstruction looks at them, and measures it on the run's evaluation data. A line is appended to
results/one_shot.jsonl as each is done; those there are not made again. ``--table`` only writes the
table. Forward passes are in bf16.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from benchmarks import machine
from benchmarks.log import Line, Log
from benchmarks.measured import markdown, percent
from sentei import one_shot, serialization
from sentei.methods import find
from sentei.models.quiet import quiet_transformers
from sentei.recipe import Recipe
from sentei.run.calibration import calibration_batches
from sentei.run.evaluate import evaluate
from sentei.run.prepare import Prepared, prepare
from sentei.run.settings import Settings
from sentei.tasks import kinds

SPARSITIES = (0.3, 0.5, 0.6, 0.7)
FIRST = (0.5, 0.7, 0.6, 0.3)
"""The order in which they are made."""

METHODS = ("magnitude", "wanda", "obs")
BUDGETS = ("global", "uniform", "uniform_rows")
"""The first is the default of magnitude and obs, the last of wanda."""

COMPARED = 0.6
"""The sparsity at which budgets are compared."""

EXAMPLES = (64, 256)
"""How many examples are looked at besides, for wanda with reconstruction, at that sparsity."""

LOG = Log("one_shot", ("task", "method", "budget", "reconstruction", "sparsity", "examples"))


def cells(examples: int) -> Iterator[Line]:
    """What tells the lines of a task from one another."""
    usual = {"examples": examples, "sparsity": COMPARED}
    for sparsity in FIRST:
        for method in METHODS:
            for rebuilt in (False, True):
                about = {"method": method, "budget": own_budget(method), "reconstruction": rebuilt}
                yield {**usual, **about, "sparsity": sparsity}
    for method in METHODS:
        for budget in BUDGETS:
            yield {**usual, "method": method, "budget": budget, "reconstruction": method == "obs"}
    for number in EXAMPLES:
        about = {"method": "wanda", "budget": own_budget("wanda"), "reconstruction": True}
        yield {**usual, **about, "examples": number}


def own_budget(method: str) -> str:
    """The budget that a method has by default."""
    kind: str = serialization.to_dict(find(method).build(0.5))["budget"]["kind"]
    return kind


def recipe_of(cell: Line) -> Recipe:
    rebuilt = "least_squares" if cell["reconstruction"] else "null"
    settings = [f"budget={cell['budget']}", f"reconstruction={rebuilt}"]
    return serialization.override(find(cell["method"]).build(cell["sparsity"]), settings)


def measure(prepared: Prepared, cell: Line) -> Line:
    """One model pruned and measured."""
    training = prepared.settings.training.model_copy(update={"calibration": cell["examples"]})
    settings = prepared.settings.model_copy(update={"training": training})
    recipe = recipe_of(cell)
    prepared = replace(prepared, settings=settings, recipe=recipe)
    model, begun = copy.deepcopy(prepared.model), time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        report = one_shot(model, recipe, calibration_batches(prepared))
    seconds = time.perf_counter() - begun
    return {
        "pruned": report.pruned,
        "prunable": report.prunable,
        "seconds": round(seconds, 2),
        "metrics": metrics(prepared, model),
    }


def metrics(prepared: Prepared, model: PreTrainedModel) -> dict[str, float]:
    batch = prepared.settings.training.batch_size
    with torch.autocast("cpu", torch.bfloat16):
        return evaluate(model, prepared.processor, prepared.corpus, prepared.evaluation, batch)


def dense(run: Path) -> Prepared:
    """The run's dense model and its data, as ``sentei prune --epochs 0`` reads them."""
    kinds.known()  # settings name one of them
    settings = Settings.read(run / "run.yaml")
    training = settings.training.model_copy(update={"epochs": 0.0, "dense_epochs": 0.0})
    recipe = serialization.to_dict(find("magnitude").build(0.5))
    changes = {"model": str(run / "model"), "training": training, "recipe": recipe}
    return prepare(settings.model_copy(update=changes))


def make(run: Path, task: str, examples: int) -> None:
    prepared = dense(run)
    whole = {"method": "dense", "budget": "", "reconstruction": False, "sparsity": 0.0}
    about = {"examples": 0, "metric": prepared.corpus.headline}
    whole |= {"task": task, **about, "of": len(prepared.corpus.evaluation)}
    if LOG.find(whole) is None:
        LOG.add({**whole, "metrics": metrics(prepared, prepared.model)})
    for cell in cells(examples):
        if LOG.find({"task": task, **cell}) is None:
            line = {"task": task, **cell, **measure(prepared, cell)}
            LOG.add(line)
            print(line, flush=True)


def table() -> str:
    """Metrics of each task, before and after, in hundredths."""
    parts = []
    for task in dict.fromkeys(line["task"] for line in LOG.lines):
        lines = [line for line in LOG.lines if line["task"] == task]
        before = next(line for line in lines if line["method"] == "dense")
        metric = before["metric"]
        shown = f"{task}, {metric}; dense {percent(before['metrics'][metric])}"
        rows = [*_rows(lines, metric)]
        head = [shown, "budget", *(f"{sparsity:.0%}" for sparsity in SPARSITIES)]
        parts.append(markdown(head, rows))
    return "\n\n".join(parts)


def _rows(lines: list[Line], metric: str) -> Iterator[list[str]]:
    usual = 1024
    for method in METHODS:
        for rebuilt in (False, True):
            for budget in BUDGETS:
                here = {
                    line["sparsity"]: percent(line["metrics"][metric])
                    for line in lines
                    if (line["method"], line["reconstruction"]) == (method, rebuilt)
                    if line["budget"] == budget and line["examples"] == usual
                }
                name = f"`{method}`{' and least squares' if rebuilt else ''}"
                if here:
                    yield [name, f"`{budget}`", *(here.get(one, "") for one in SPARSITIES)]
    for line in lines:
        if line["examples"] in EXAMPLES:
            here = {line["sparsity"]: percent(line["metrics"][metric])}
            name = f"`{line['method']}` and least squares, {line['examples']:,} examples"
            yield [name, f"`{line['budget']}`", *(here.get(one, "") for one in SPARSITIES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="folder of a finished dense run")
    parser.add_argument("task", nargs="?", help="what the table calls it")
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--table", action="store_true", help="only write the table")
    given = parser.parse_args()
    quiet_transformers()
    if not given.table:
        make(given.run, given.task, given.examples)
    about = {
        "machine, versions and commit of each line": "one_shot.jsonl",
        "command": "python -m benchmarks.one_shot RUN TASK",
    }
    text = ["# one_shot", "", table(), "", *(f"- {name}: {of}" for name, of in about.items())]
    (machine.RESULTS / "one_shot.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
