"""A first look at quality: every method at one sparsity on MRPC, STS-B and BBC news.

all-MiniLM-L6-v2 is fine-tuned once a task, dense; every cell prunes that model, with the same data,
steps, batch and learning rate for every method and every method's own defaults, and the dense model
goes on training as long for comparison ("dense"). ``--start pretrained`` prunes while the
pretrained model learns the task instead, as the papers do. Methods with a teacher learn from the
dense model, from where their recipe starts. BBC news takes its dense model from ``sentei demo``
(``--model``). Cells are appended to results/first_look.jsonl as they finish; those already there
are skipped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import corpora, machine
from sentei import methods, serialization
from sentei.cli.demo import TRAINING
from sentei.models.demo import DEMO
from sentei.models.quiet import quiet_transformers
from sentei.run.prepare import prepare
from sentei.run.run import prune
from sentei.run.settings import Settings, make_recipe

START, DENSE = "start", "dense"
TASKS: dict[str, dict[str, Any]] = {
    "mrpc": {"epochs": 2, "max_length": 128, "regression": False, "metric": "f1"},
    "stsb": {"epochs": 1.5, "max_length": 128, "regression": True, "metric": "spearman"},
}
"""Besides these: batch 16, learning rate 1e-4, 10 % warm-up, linear decay, clip 1, seed 42."""
ALL = [method.name for method in methods.known() if not method.build().schedule.from_model]
SHOWN = {"mrpc": ("accuracy", "f1"), "stsb": ("pearson", "spearman"), "bbc": ("accuracy",)}


def settings(task: str, method: str, overrides: list[str], arguments: Any) -> Any:
    plain = method in (DENSE, START)
    recipe = make_recipe(
        "magnitude" if plain else method, 0.0 if plain else arguments.sparsity, None, overrides
    )
    given: dict[str, Any] = {
        "seed": arguments.seed,
        "recipe": serialization.to_dict(recipe),
        "evaluations": 1,
        "checkpoints": 1,
    }
    if task == "bbc":
        given |= {"model": str(arguments.model), "task": DEMO, **TRAINING, "dense_epochs": 0}
    else:
        folder = arguments.work / task
        train, evaluation = corpora.write(corpora.CORPORA[task], arguments.data, folder)
        dense = _dense(task, arguments)
        pretrained = method == START or arguments.start == "pretrained"
        if recipe.distill:
            pretrained = recipe.distill.student == "pretrained"
            given["teacher"] = str(dense)
        given |= {
            "model": DEMO if pretrained else str(dense),
            "train": train,
            "eval": evaluation,
            "text_column": "text",
            "pair_column": "pair",
            "label_column": "label",
            "batch_size": 16,
            "learning_rate": 1e-4,
            **TASKS[task],
        }
        if not plain:
            given["epochs"] = arguments.longer * TASKS[task]["epochs"]
    return Settings.model_validate(given)


def _dense(task: str, arguments: Any) -> Path:
    """The dense model that all cells of a task start from."""
    work: Path = arguments.work
    return work / f"{task}-dense-{arguments.seed}"


def cell(task: str, method: str, overrides: list[str], arguments: Any) -> dict[str, object]:
    chosen = settings(task, method, overrides, arguments)
    with tempfile.TemporaryDirectory() as folder:
        prepared = replace(prepare(chosen), trained_head=False)  # the start has a row of its own
        report = prune(prepared, Path(folder, "run"))
        if method == START:
            shutil.move(Path(folder, "run", "model"), _dense(task, arguments))
    return {
        "task": task,
        "method": method,
        "set": overrides,
        "start": arguments.start,
        "sparsity": 0.0 if method in (DENSE, START) else arguments.sparsity,
        "seed": arguments.seed,
        "longer": arguments.longer,
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
    names = list(dict.fromkeys(_name(found) for found in cells))
    for name in sorted(names, key=lambda n: (n[0] != START, n[0] != DENSE, n)):
        row = []
        for task in tasks:
            same = [c for c in cells if c["task"] == task and _name(c) == name]
            row += [f"{100 * same[-1]['metrics'][m]:.1f}" if same else "" for m in SHOWN[task]]
        label = name[0] + (f" ({', '.join(name[1:])})" if name[1:] else "")
        lines.append(f"| {label} | " + " | ".join(row) + " |")
    return "\n".join(lines)


def _name(found: dict[str, Any]) -> tuple[str, ...]:
    start = ["from the pretrained model"] if found["start"] == "pretrained" else []
    longer = [f"{found['longer']:g} times the steps"] if found.get("longer", 1) != 1 else []
    return (found["method"], *start, *longer, *found["set"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["mrpc", "stsb"], choices=list(SHOWN))
    parser.add_argument("--methods", nargs="+", default=[START, DENSE, *ALL])
    parser.add_argument("--set", dest="overrides", nargs="+", default=[], help="of every recipe")
    parser.add_argument("--start", choices=["dense", "pretrained"], default="dense")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--longer", type=float, default=1.0, help="times the steps, of methods")
    parser.add_argument("--data", type=Path, help="folder of the benchmark data")
    parser.add_argument("--model", type=Path, help="bbc: dense/model of a demo run")
    parser.add_argument("--work", type=Path, default=Path("first_look"), help="scratch folder")
    arguments = parser.parse_args()
    quiet_transformers()
    log = machine.RESULTS / "first_look.jsonl"
    cells = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []

    def key(found: dict[str, Any]) -> tuple[object, ...]:
        names = ("task", "method", "start", "sparsity", "seed")
        return (*(found[name] for name in names), found.get("longer", 1.0), *found["set"])

    done = {key(found) for found in cells}
    for method in arguments.methods:
        for task in arguments.tasks:
            sparsity = 0.0 if method in (DENSE, START) else arguments.sparsity
            asked = (task, method, arguments.start, sparsity, arguments.seed, arguments.longer)
            if (*asked, *arguments.overrides) in done:
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
        "for 2 epochs (510 steps), STS-B for 1.5 (540 steps), BBC news with the demo's settings, "
        "each from one dense model (start); dense is that model trained as long again. Same data, "
        "steps, batch and learning rate for all, every method's own defaults otherwise. `python "
        "-m benchmarks.first_look --data ...`, see its docstring. Machine, versions and commit of "
        "each run: its line in first_look.jsonl.",
        "",
        table(cells),
    ]
    (machine.RESULTS / "first_look.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
