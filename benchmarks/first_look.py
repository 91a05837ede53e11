"""A first look at quality: every method at one sparsity on MRPC, STS-B and BBC news.

all-MiniLM-L6-v2 is pruned while it is fine-tuned, with the same data, steps, batch and learning
rate for every method and every method's own defaults. MRPC and STS-B start from the pretrained
model, as the papers do; the dense row is the same training without pruning, and the teacher of the
methods that have one. BBC news starts from a dense model (``--model``, of ``sentei demo``). Cells
are appended to results/first_look.jsonl as they finish; those already there are skipped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import corpora, machine
from sentei import methods
from sentei import recipe as recipes
from sentei.cli.app import quiet_transformers
from sentei.cli.demo import TRAINING
from sentei.hf.prepare import prepare
from sentei.hf.run import prune
from sentei.hf.settings import DEMO, Settings, make_recipe

DENSE = "dense"
TASKS: dict[str, dict[str, Any]] = {
    "mrpc": {"epochs": 2, "max_length": 128, "regression": False, "metric": "f1"},
    "stsb": {"epochs": 1.5, "max_length": 128, "regression": True, "metric": "spearman"},
}
"""Besides these: batch 16, learning rate 1e-4, 10 % warm-up, linear decay, clip 1, seed 42."""
SHOWN = {"mrpc": ("accuracy", "f1"), "stsb": ("pearson", "spearman"), "bbc": ("accuracy",)}


def settings(task: str, method: str, sparsity: float, overrides: list[str], arguments: Any) -> Any:
    recipe = make_recipe(
        "magnitude" if method == DENSE else method, sparsity if method != DENSE else 0.0, None, []
    )
    given: dict[str, Any] = {
        "seed": arguments.seed,
        "recipe": recipes.to_dict(recipes.override(recipe, overrides)),
        "evaluations": 1,
        "checkpoints": 1,
    }
    if task == "bbc":
        given |= {"model": str(arguments.model), "task": DEMO, **TRAINING, "dense_epochs": 0}
    else:
        folder = arguments.work / task
        train, evaluation = corpora.write(corpora.CORPORA[task], arguments.data, folder)
        given |= {
            "model": DEMO,
            "train": train,
            "eval": evaluation,
            "text_column": "text",
            "pair_column": "pair",
            "label_column": "label",
            "batch_size": 16,
            "learning_rate": 1e-4,
            **TASKS[task],
        }
    if recipe.distill:
        teacher = arguments.work / f"{task}-dense-{arguments.seed}"
        if not teacher.is_dir():
            raise SystemExit(f"{method} needs the dense model of {task}: run --methods dense first")
        given["teacher"] = str(teacher)
    return Settings.model_validate(given)


def cell(task: str, method: str, overrides: list[str], arguments: Any) -> dict[str, object]:
    chosen = settings(task, method, arguments.sparsity, overrides, arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = prune(prepare(chosen), Path(folder, "run"))
        if method == DENSE and task != "bbc":
            keep = arguments.work / f"{task}-dense-{arguments.seed}"
            Path(folder, "run", "model").rename(keep)
    return {
        "task": task,
        "method": method,
        "set": overrides,
        "sparsity": 0.0 if method == DENSE else arguments.sparsity,
        "seed": arguments.seed,
        "metrics": report.sparse,
        "steps": report.pruning.total_steps,
        "pruned": report.pruning.pruned,
        "prunable": report.pruning.prunable,
        "seconds": report.seconds["train"],
        "machine": machine.facts(),
    }


def table(cells: list[dict[str, Any]]) -> str:
    tasks = [task for task in SHOWN if any(found["task"] == task for found in cells)]
    heads = [f"{task} {metric}" for task in tasks for metric in SHOWN[task]]
    lines = ["| method | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    names = list(dict.fromkeys((found["method"], *found["set"]) for found in cells))
    for name in sorted(names, key=lambda n: (n[0] != DENSE, n)):
        row = []
        for task in tasks:
            same = [c for c in cells if c["task"] == task and (c["method"], *c["set"]) == name]
            row += [f"{100 * same[-1]['metrics'][m]:.1f}" if same else "" for m in SHOWN[task]]
        label = name[0] + (f" ({', '.join(name[1:])})" if name[1:] else "")
        lines.append(f"| {label} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["mrpc", "stsb"], choices=list(SHOWN))
    parser.add_argument("--methods", nargs="+", default=[DENSE, *(m.name for m in methods.known())])
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], help="of every recipe")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--data", type=Path, help="folder of the benchmark data")
    parser.add_argument("--model", type=Path, help="bbc: dense/model of a demo run")
    parser.add_argument("--work", type=Path, default=Path("first_look"), help="scratch folder")
    arguments = parser.parse_args()
    quiet_transformers()
    log = machine.RESULTS / "first_look.jsonl"
    cells = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []

    def key(found: dict[str, Any]) -> tuple[object, ...]:
        names = ("task", "method", "sparsity", "seed")
        return (*(found[name] for name in names), *found["set"])

    done = {key(found) for found in cells}
    for method in arguments.methods:
        for task in arguments.tasks:
            sparsity = 0.0 if method == DENSE else arguments.sparsity
            if (task, method, sparsity, arguments.seed, *arguments.overrides) in done:
                continue
            found = cell(task, method, arguments.overrides, arguments)
            cells.append(found)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(task, method, found["metrics"], f"{found['seconds']:.0f} s", flush=True)
            _write(cells)
    print(table(cells))


def _write(cells: list[dict[str, Any]]) -> None:
    text = [
        "# first_look",
        "",
        "all-MiniLM-L6-v2 at 90 % of its 10,616,832 encoder weights removed, in %, one seed: one "
        "text is 0.06 points of MRPC's accuracy (1,725 test pairs), 0.23 of BBC news' (426). MRPC "
        "for 2 epochs (510 steps), STS-B for 1.5 (540 steps), from the pretrained model; BBC news "
        "with the demo's settings, from one dense model. Same data, steps, batch and learning rate "
        "for all, every method's own defaults otherwise. `python -m benchmarks.first_look --data "
        "...`, see its docstring. Machine, versions and commit of each run: its line in "
        "first_look.jsonl.",
        "",
        table(cells),
    ]
    (machine.RESULTS / "first_look.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
