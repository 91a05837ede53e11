"""Quality of every method under one protocol, such as ``python -m benchmarks.quality first``.

The protocols are plans of ``sentei compare`` in protocols/; benchmarks/plans.py says how their runs
are made and kept, here in results/quality_PROTOCOL.jsonl.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from benchmarks import corpora, machine, plans
from benchmarks.log import Line, Log
from benchmarks.measured import Measured, against, markdown, of_lines, percent, pivot
from sentei import report as reports
from sentei.compare.runs import Run
from sentei.records import REFERENCES, Summary

NAMES = ("first", "full", "longer", "parts", "pretrained", "rates", "rebuilding", "reconstruction")


def benchmark(protocol: str) -> plans.Benchmark:
    return plans.Benchmark(
        protocol=protocol,
        log=Log(f"quality_{protocol}"),
        key=lambda run: {"run": run.name},
        line=_line,
        settings=_settings,
        write=lambda: _write(protocol),
    )


def _line(run: Run, data: Path) -> Line:
    report = reports.read(run.folder)
    return {
        "role": run.role,
        "task": run.task,
        "recipe": run.recipe,
        "sparsity": run.sparsity,
        "seed": run.seed,
        "metric": report.metric,
        "metrics": report.sparse,
        **plans.settings_of(run),
    }


def _settings(name: str, task: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    corpus = task.pop("corpus", name)
    out = work / "data" / corpus
    files = out / "train.jsonl", out / "eval.jsonl"
    if not files[1].is_file():  # written last; another worker may be reading
        corpora.write(corpora.CORPORA[corpus], data, out)
    columns = {"text_column": "text", "label_column": "label"}
    if corpora.CORPORA[corpus].pair is not None:
        columns["pair_column"] = "pair"
    return {**task, "train": str(files[0]), "eval": str(files[1]), **columns}


def table(runs: Measured, baseline: str) -> str:
    """Mean over seeds, in %, for each task and sparsity; differences to the baseline, in pairs."""
    parts = []
    if any(run.recipe in REFERENCES for run in runs.runs):
        parts += ["## Not pruned", "", _means(runs, 0.0, ""), ""]
    for sparsity in runs.sparsities:
        parts += [f"## {100 * sparsity:g} % pruned", "", _means(runs, sparsity, baseline), ""]
    over_all = [one for one in runs.differences(baseline) if one.sparsity is None]
    if over_all:
        rows = sorted(over_all, key=lambda one: (one.mean, one.recipe), reverse=True)
        lines = [[one.recipe, against(one)] for one in rows]
        head = ["", f"against {baseline}"]
        parts += ["## Over all sparsities", "", markdown(head, lines), ""]
    return "\n".join(parts)


def _means(runs: Measured, sparsity: float, baseline: str) -> str:
    metrics = runs.where(sparsity=sparsity).metrics
    rows = pivot(runs, sparsity, baseline)
    compared = any(row.difference for row in rows)
    head = ["", *(f"{task} {metric}" for task, metric in metrics.items())]
    head += [f"mean of {len(metrics)}"] * (len(metrics) > 1)
    head += [f"against {baseline}"] * compared
    lines = []
    for row in rows:
        line = [row.recipe, *map(_spread, row.cells)]
        if len(metrics) > 1:
            line.append("" if row.mean is None else percent(row.mean))
        if compared:
            line.append(against(row.difference))
        lines.append(line)
    return markdown(head, lines)


def _spread(summary: Summary | None) -> str:
    if summary is None:
        return ""
    mean = percent(summary.mean)
    if summary.deviation is None:
        return mean
    return f"{mean} ± {percent(summary.deviation)} ({summary.count})"


def _write(protocol: str) -> str:
    text = (plans.PROTOCOLS / f"{protocol}.yaml").read_text("utf-8")
    comment = re.match(r"(#.*\n)*", text)
    assert comment is not None
    about = " ".join(line.lstrip("# ") for line in comment[0].splitlines())
    lines = Log(f"quality_{protocol}").lines
    tables = table(of_lines(lines), plans.protocol(protocol)["baseline"])
    page = [
        f"# quality_{protocol}",
        "",
        f"{about} All that is fixed: protocols/{protocol}.yaml. In %; ± is the standard deviation "
        "over so many seeds; *against* has a 95 % t interval of the paired differences, which over "
        "all sparsities are averaged within a task and seed first. "
        f"{len(lines)} runs so far, each a line in quality_{protocol}.jsonl with its settings, "
        "recipe, machine, versions and command.",
        "",
        tables,
    ]
    (machine.RESULTS / f"quality_{protocol}.md").write_text("\n".join(page), encoding="utf-8")
    return tables


def main() -> None:
    parser = plans.parser(__doc__)
    parser.add_argument("protocol", choices=NAMES)
    arguments = parser.parse_args()
    plans.make(benchmark(arguments.protocol), arguments)


if __name__ == "__main__":
    main()
