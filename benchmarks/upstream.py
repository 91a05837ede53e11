"""Pruned once on plain text and fine-tuned with its zeros, beside pruning on each task.

    python -m benchmarks.upstream --data DATA --work FOLDER

all-MiniLM-L6-v2, which brings no head that guesses masked tokens, is pruned by masked language
modelling on the sentences of data sets that are not among the tasks. Then it is fine-tuned on each
task with frozen masks, for as many steps as the same method has that prunes on the task itself, and
as a dense model is trained. The plan is protocols/upstream.yaml. Runs are kept as they end; stopped
and started again, it goes on. ``--table`` only writes the table.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import corpora, machine, plans
from benchmarks.log import Line, Log
from benchmarks.measured import markdown
from sentei import frozen_mask, serialization
from sentei import report as reports
from sentei.compare.execute import run_here
from sentei.compare.runs import unpruned
from sentei.files import write_text
from sentei.models.quiet import quiet_transformers
from sentei.recipe import Recipe
from sentei.run.options import settings_from
from sentei.run.recipes import make_recipe

LOG = Log("upstream", ("task", "way", "sparsity"))

TEXTS = ("rte", "mrpc", "qnli-dev-split", "stsb", "cola")
"""Data sets whose training sentences are the plain text."""

UPSTREAM = "masked text"
WAYS = ("dense", "on the task", "upstream")
"""How a model for a task is made."""


def plain_text(data: Path, folder: Path) -> dict[str, str]:
    """Every sentence of the data sets once, in an order of chance; a fiftieth is set aside."""
    sentences: dict[str, None] = {}
    for name in TEXTS:
        train, _ = corpora.write(corpora.CORPORA[name], data, folder / name)
        for row in map(json.loads, train.read_text(encoding="utf-8").splitlines()):
            sentences |= dict.fromkeys(row[key] for key in ("text", "pair") if key in row)
    order = random.Random(0).sample(list(sentences), len(sentences))
    aside = len(order) // 50
    files = {"train": order[aside:], "eval": order[:aside]}
    for name, texts in files.items():
        lines = (json.dumps({"text": text}) + "\n" for text in texts)
        write_text(folder / f"{name}.jsonl", "".join(lines))
    return {name: str(folder / f"{name}.jsonl") for name in files}


def make(data: Path, work: Path) -> None:
    """Make the runs that the results lack, from the least sparsity to the most."""
    plan = plans.protocol("upstream")
    files = {UPSTREAM: plain_text(data, work / "data" / "plain")}
    for task in plan["tasks"]:
        train, evaluation = corpora.write(corpora.CORPORA[task], data, work / "data" / task)
        files[task] = {"train": str(train), "eval": str(evaluation)}
    for key, recipe, model in _runs(plan, work):
        training = plan["upstream"] if key["task"] == UPSTREAM else plan["tasks"][key["task"]]
        options = {**plan["settings"], **training, **files[key["task"]], **model}
        out = _folder(work, key)
        if not (out / "report.json").is_file() and LOG.find(key) is None:
            settings = settings_from(options, serialization.to_dict(recipe))
            run_here(out, settings, page=False)
        if LOG.find(key) is None:
            LOG.add({**key, **_measured(out), "training": training})
            write()


def _runs(plan: dict[str, Any], work: Path) -> Iterator[tuple[Line, Recipe, dict[str, str]]]:
    """Key, recipe and, where it is not that of all, the model of every run."""
    for task in plan["tasks"]:
        yield _key(task, "dense", 0.0), unpruned(), {}
    for sparsity in plan["sparsities"]:
        pruned = make_recipe(plan["method"], sparsity, None, [])
        upstream = _key(UPSTREAM, "upstream", sparsity)
        yield upstream, pruned, {}
        for task in plan["tasks"]:
            model = {"model": str(_folder(work, upstream) / "model")}
            yield _key(task, "upstream", sparsity), frozen_mask(), model
            yield _key(task, "on the task", sparsity), pruned, {}


def _key(task: str, way: str, sparsity: float) -> Line:
    return {"task": task, "way": way, "sparsity": sparsity}


def _folder(work: Path, key: Line) -> Path:
    return work / "upstream" / "{task}-{way}-{sparsity}".format(**key).replace(" ", "-")


def _measured(run: Path) -> Line:
    report = reports.read(run)
    return {
        "metric": report.metric,
        "metrics": report.sparse,
        "steps": report.pruning.total_steps,
        "pruned": report.pruning.pruned,
        "prunable": report.pruning.prunable,
        "train_examples": report.train_examples,
        "eval_examples": report.eval_examples,
        "seconds": report.seconds["train"],
    }


def table(lines: list[Line]) -> str:
    """A row for each task: the dense model, then both ways of pruning at each sparsity."""
    cells = {(line["task"], line["way"], line["sparsity"]): line for line in lines}
    sparsities = sorted({line["sparsity"] for line in lines} - {0.0})
    columns = [("dense", 0.0), *((way, one) for one in sparsities for way in WAYS[1:])]
    head = ["task", "steps", *(f"{way} {100 * one:g} %" if one else way for way, one in columns)]
    rows = []
    for task in dict.fromkeys(line["task"] for line in lines if line["task"] != UPSTREAM):
        here = [cells.get((task, *column)) for column in columns]
        steps = {str(line["steps"]) for line in here if line}
        shown = [f"{100 * one['metrics'][one['metric']]:.1f}" if one else "" for one in here]
        rows.append([task, ", ".join(sorted(steps)), *shown])
    return "\n".join([markdown(head, rows), "", *map(_note, lines)])


def _note(line: Line) -> str:
    settings = ", ".join(f"{key} {value}" for key, value in line["training"].items())
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in line["metrics"].items())
    return (
        f"- **{line['task']}, {line['way']}**: {line['pruned']:,} of {line['prunable']:,} "
        f"prunable weights are zero; {line['steps']:,} steps "
        f"({settings}); {metrics}."
    )


def write() -> str:
    """Write results/upstream.md and return its table."""
    shown = table(LOG.lines)
    text = [
        "# upstream",
        "",
        "all-MiniLM-L6-v2, one seed, accuracy in %. Upstream: pruned once by "
        f"`{plans.protocol('upstream')['method']}` while it guesses masked tokens of other data "
        f"sets' sentences ({', '.join(TEXTS)}), then fine-tuned on the task with its zeros. On the "
        "task: pruned there by the same method. All of a task have the same steps there; those of "
        "upstream come on top. The checkpoint has no head for masked tokens, which is learnt on "
        "the way. `python -m benchmarks.upstream --data ...`; machine, versions and commit of each "
        "run: its line in upstream.jsonl.",
        "",
        shown,
    ]
    (machine.RESULTS / "upstream.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the benchmark data")
    parser.add_argument("--work", type=Path, default=Path("benchmarking"), help="scratch folder")
    parser.add_argument("--table", action="store_true", help="only write the table")
    given = parser.parse_args()
    if not given.table:
        if given.data is None:
            parser.error("--data is missing: the folder that holds mrpc, stsb, ...")
        quiet_transformers()
        make(given.data, given.work)
    print(write())


if __name__ == "__main__":
    main()
