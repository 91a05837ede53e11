"""A first look at quality: the methods at several sparsities on the demo's task, one dense start.

all-MiniLM-L6-v2 is fine-tuned once on BBC news, dense; every cell prunes that model with the demo's
training settings, and the dense model goes on training as long for comparison (sparsity 0). Cells
are appended to results/first_look.jsonl as they finish; those already there are skipped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks import machine
from sentei import recipe as recipes
from sentei.cli.app import quiet_transformers
from sentei.cli.demo import TRAINING
from sentei.hf.prepare import prepare
from sentei.hf.run import prune
from sentei.hf.settings import DEMO, Settings, make_recipe

METHODS = ("magnitude", "sensitivity", "platon")


def cell(model: Path, method: str, sparsity: float, seed: int, out: Path) -> dict[str, object]:
    training = {**TRAINING, "dense_epochs": 0, "evaluations": 1, "checkpoints": 1}
    settings = Settings.model_validate(
        {
            "model": str(model),
            "task": DEMO,
            "seed": seed,
            "recipe": recipes.to_dict(make_recipe(method, sparsity, None, [])),
            **training,
        }
    )
    report = prune(prepare(settings), out)
    return {
        "method": method if sparsity else "dense, trained as long",
        "sparsity": sparsity,
        "seed": seed,
        "start": report.dense,
        "metrics": report.sparse,
        "pruned": report.pruning.pruned,
        "prunable": report.pruning.prunable,
        "seconds": report.seconds["train"],
        "machine": machine.facts(),
    }


def table(cells: list[dict[str, object]]) -> str:
    groups: dict[tuple[str, float], list[float]] = {}
    for found in cells:
        metrics = found["metrics"]
        assert isinstance(metrics, dict)
        key = (str(found["method"]), float(str(found["sparsity"])))
        groups.setdefault(key, []).append(100 * metrics["accuracy"])
    lines = ["| method | sparsity | accuracy, % | seeds |", "|---|---|---|---|"]
    for (method, sparsity), values in sorted(groups.items(), key=lambda item: item[0][::-1]):
        each = ", ".join(f"{value:.1f}" for value in values)
        mean = f"{statistics.mean(values):.1f} ({each})" if len(values) > 1 else each
        lines.append(f"| {method} | {sparsity:.0%} | {mean} | {len(values)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="dense/model of a demo run")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    arguments = parser.parse_args()
    quiet_transformers()
    log = machine.RESULTS / "first_look.jsonl"
    cells = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    done = {(found["method"], found["sparsity"], found["seed"]) for found in cells}
    wanted = [("dense, trained as long", 0.0)]
    wanted += [(method, sparsity) for sparsity in arguments.sparsity for method in METHODS]
    for seed in arguments.seeds:
        for method, sparsity in wanted:
            if (method, sparsity, seed) in done:
                continue
            with tempfile.TemporaryDirectory() as folder:
                build = method if sparsity else "magnitude"
                found = cell(arguments.model, build, sparsity, seed, Path(folder, "run"))
            cells.append(found)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(method, sparsity, seed, found["metrics"], flush=True)
            _write(cells)
    print(table(cells))


def _write(cells: list[dict[str, object]]) -> None:
    text = [
        "# first_look",
        "",
        "all-MiniLM-L6-v2 on BBC news (426 evaluation texts: one text is 0.23 points), pruned from "
        "one dense model with the demo's settings (`python -m benchmarks.first_look`, see its "
        "docstring). Machine, versions and commit of each run: its line in first_look.jsonl.",
        "",
        table(cells),
    ]
    (machine.RESULTS / "first_look.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
