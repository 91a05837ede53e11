"""Single weights or blocks of 4x1: what each keeps of the metric, and how fast the engine makes it.

    python -m benchmarks.patterns RUN [RUN ...]

Finished runs of `sentei prune` on one or more data sets. Each pruned model is measured on its run's
evaluation data, in torch and on the engine in int8, and all models take turns in being timed on the
engine, one thread: texts of the evaluation data in batches of 32 as they come, and 8 x 128 tokens.
The run whose sparsity is 0 is the dense model.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.measured import markdown
from benchmarks.path import open_stop, sizes, tell
from sentei import report as reports
from sentei.models.quiet import quiet_transformers
from sentei.report.facts import Metric
from sentei.run.bench import score
from sentei.run.settings import Settings
from sentei.runtime.bench.choice import Engine
from sentei.runtime.bench.measure import measure

ENGINES = (Engine("torch", "fp32"), Engine("sentei", "int8"))


def line(run: Path, rounds: int) -> dict[str, Any]:
    """A model: how it was pruned, what it scores, and the processor's milliseconds a sequence."""
    settings = Settings.read(run / "run.yaml")
    claims = reports.read(run).pruning
    with tempfile.TemporaryDirectory() as files:
        folder = Path(files, "model")
        stop = open_stop(run.name, str(run / "model"), ENGINES, settings, 1, folder)
        metric = stop.data.corpus.headline
        scores = [
            score(contender, stop.model.module, stop.data, tell).metrics[metric]
            for contender in stop.contenders
        ]
        ours = stop.contenders[-1]
        work = sizes(stop.model.module, stop.data.texts)
        speeds = measure(stop.model.module, [ours], work, rounds=rounds, threads=1)
    recipe = claims.recipe["pattern"]
    return {
        "data": Path(str(settings.task.eval)).parent.name,
        "method": claims.method,
        "steps": claims.total_steps,
        "pattern": "{rows}x{columns}".format(**recipe) if "rows" in recipe else "single weights",
        "sparsity": claims.pruned / claims.prunable,
        "metric": metric,
        "torch": scores[0],
        "int8": scores[-1],
        "milliseconds": [round(speed.processor, 4) for speed in speeds],
    }


def table(lines: list[dict[str, Any]]) -> str:
    """Data set by data set, the sparser the lower."""
    rows = []
    for one in sorted(lines, key=lambda one: (one["data"], one["sparsity"], one["pattern"])):
        metric = Metric(one["metric"])
        dense = one["sparsity"] < 0.01
        dense_time = next(
            other["milliseconds"]
            for other in lines
            if other["data"] == one["data"] and other["sparsity"] < 0.01
        )
        cells = [
            f"{this:.2f} ({first / this:.1f}x)"
            for this, first in zip(one["milliseconds"], dense_time, strict=True)
        ]
        rows.append(
            [
                f"{one['data']}, {metric.label}",
                "dense" if dense else f"{100 * one['sparsity']:.0f} %, {one['pattern']}",
                metric.text(one["torch"]),
                metric.text(one["int8"]),
                *cells,
            ]
        )
    head = ["", "", "torch fp32", "engine int8", "texts, batch 32: ms", "128 tokens, batch 8: ms"]
    return markdown(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    quiet_transformers()
    lines = [line(run, given.rounds) for run in given.runs]
    machine.write("patterns", table(lines), {"runs": lines})


if __name__ == "__main__":
    main()
