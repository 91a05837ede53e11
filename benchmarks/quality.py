"""Quality of every method under one protocol: a plan of ``sentei compare`` in protocols/.

    python -m benchmarks.quality first --data DATA --work FOLDER --only '*/0.9/seed1'

writes the tasks' data sets and the comparison into FOLDER/first, makes the runs asked for that
results/quality_first.jsonl does not have, appends each to it as it ends, and makes the table of all
of them. Stopped, it goes on; started twice on the same FOLDER, the two share the work.

``--again`` makes runs that the file has in FOLDER/first-again, prints both numbers, and appends
nothing; remove that folder to make them once more.
``--table`` only makes the table. Without ``--only`` all that the protocol asks for is made.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import cells, corpora, machine
from sentei import report as reports
from sentei.compare.begin import begin
from sentei.compare.cells import RUNS, Cell, Grid
from sentei.compare.choices import TRAINING
from sentei.compare.claims import Claims, open_storage
from sentei.compare.plan import load
from sentei.compare.statistics import Spread, interval, paired, pooled, spread
from sentei.compare.work import Event, Worker
from sentei.models.quiet import quiet_transformers
from sentei.run.settings import Settings

PROTOCOLS = Path(__file__).parent / "protocols"
PATIENCE = 600.0
"""Seconds of silence after which a worker is held dead: on a busy machine a step may take many."""

Line = dict[str, Any]


def log_of(protocol: str) -> cells.Log:
    """The runs under one protocol."""
    return cells.Log(f"quality_{protocol}", ("run",))


def _line(cell: Cell) -> Line:
    """What is kept of a finished run: what was asked and what came out."""
    report = reports.read(cell.folder)
    asked = Settings.read(cell.folder / "run.yaml")
    return {
        "run": cell.name,
        "role": cell.role,
        "task": cell.task,
        "recipe": cell.recipe,
        "sparsity": cell.sparsity,
        "seed": cell.seed,
        "metric": report.metric,
        "metrics": report.sparse,
        "pruned": report.pruning.pruned,
        "prunable": report.pruning.prunable,
        "steps": report.pruning.total_steps,
        "seconds": report.seconds["train"],
        "settings": {name: getattr(asked, name) for name in (*TRAINING, "max_length", "holdout")},
        "teacher": bool(asked.load_recipe().distill),
        "declared": asked.recipe,
    }


def refuse_stale(lines: Sequence[Line], made: Grid) -> None:
    """Refuse lines that the protocol would make otherwise today: names do not tell them apart.

    What a search chose is not compared, nor settings that came after a line.

    Raises:
        ValueError: Names the first such run, and what differs.
    """
    for line in lines:
        cell = made.cells.get(line["run"])
        if cell is None or cell.search:
            continue
        settings = {name: getattr(cell.settings, name) for name in line["settings"]}
        parts = {name: part for name, part in line["declared"].items() if name != "method"}
        for was, now in ((line["settings"], settings), (parts, cell.settings.recipe)):
            if found := _difference(was, now):
                raise ValueError(
                    f"{cell.name} is in the results with {found}: give what the protocol asks for "
                    "now another name, or take the line out"
                )


def _difference(was: Any, now: Any, path: str = "") -> str:
    """The first place where a line says something else; empty if none does."""
    if isinstance(was, dict) and isinstance(now, dict):
        found = (_difference(was[key], now.get(key), f"{path}.{key}") for key in was)
        return next(filter(None, found), "")
    if isinstance(was, list | tuple) and isinstance(now, list | tuple) and len(was) == len(now):
        found = (
            _difference(a, b, f"{path}.{i}") for i, (a, b) in enumerate(zip(was, now, strict=True))
        )
        return next(filter(None, found), "")
    return "" if was == now else f"{path.removeprefix('.')}={was!r}, which is {now!r} now"


def grid(protocol: str, data: Path, work: Path, again: bool) -> tuple[Grid, Claims]:
    """The comparison in ``work``, begun or joined, with its data sets written."""
    asked = yaml.safe_load((PROTOCOLS / f"{protocol}.yaml").read_text("utf-8"))
    for name, task in asked["tasks"].items():
        corpus = task.pop("corpus", name)
        train, evaluation = _data(corpus, data, work / "data" / corpus)
        columns = {"text_column": "text", "label_column": "label"}
        if corpora.CORPORA[corpus].pair is not None:
            columns["pair_column"] = "pair"
        task |= {"train": str(train), "eval": str(evaluation), **columns}
    begun = begin(load(asked), work / (f"{protocol}-again" if again else protocol))
    return begun.grid, Claims(open_storage(begun.storage), begun.name, begun.grid.cells, PATIENCE)


def _data(name: str, data: Path, out: Path) -> tuple[Path, Path]:
    files = out / "train.jsonl", out / "eval.jsonl"
    if not files[1].is_file():  # written last; another worker may be reading
        corpora.write(corpora.CORPORA[name], data, out)
    return files


def table(protocol: str, lines: Sequence[Line], baseline: str) -> str:
    """Mean over seeds, in %, for each task and sparsity; differences to the baseline, in pairs.

    Recipes stand in the order of these differences, as not every one has run on every task.
    """
    shown = [line for line in lines if line["run"].startswith(RUNS)]
    metrics = {line["task"]: line["metric"] for line in shown}
    parts = []
    dense = [line for line in shown if line["role"] in ("start", "dense")]
    if dense:
        parts += ["## Not pruned", "", _means(dense, metrics), ""]
    pruned = [line for line in shown if line["role"] == "pruned"]
    for sparsity in sorted({line["sparsity"] for line in pruned}):
        here = [line for line in pruned if line["sparsity"] == sparsity]
        parts += [f"## {100 * sparsity:g} % pruned", "", _means(here, metrics, baseline), ""]
    return "\n".join([*parts, *_over_all(pruned, baseline)])


def _over_all(lines: Sequence[Line], baseline: str) -> list[str]:
    """Each recipe against the baseline, over tasks and seeds where both have every sparsity.

    Differences are averaged over sparsities within a task and seed first, as they share their start
    and the order of their data.
    """
    sparsities = {line["sparsity"] for line in lines}
    if len(sparsities) < 2:
        return []
    values: dict[str, dict[tuple[str, int, float], float]] = defaultdict(dict)
    for line in lines:
        value = 100 * line["metrics"][line["metric"]]
        values[line["recipe"]][line["task"], line["seed"], line["sparsity"]] = value
    theirs, rows = values.get(baseline, {}), []
    for recipe, ours in values.items():
        pairs = paired(ours, theirs) if recipe != baseline else {}
        found = pooled(((at[:2], d) for at, d in pairs.items()), len(sparsities))
        if found:
            mean = sum(found) / len(found)
            rows.append((mean, f"| {recipe} | {_against(found)} |"))
    if not rows:
        return []
    table = [row for _, row in sorted(rows, reverse=True)]
    return ["## Over all sparsities", "", f"| | against {baseline} |", "|---|---|", *table, ""]


def _means(lines: Sequence[Line], metrics: dict[str, str], baseline: str | None = None) -> str:
    tasks = [task for task in metrics if any(line["task"] == task for line in lines)]
    values: dict[str, dict[tuple[str, int], float]] = defaultdict(dict)
    for line in lines:
        values[line["recipe"]][line["task"], line["seed"]] = 100 * line["metrics"][line["metric"]]
    against = values.get(baseline or "")
    head = [f"{task} {metrics[task]}" for task in tasks]
    head += [f"mean of {len(tasks)}"] * (len(tasks) > 1)
    head += [f"against {baseline}"] * bool(against)
    rows = []
    for recipe, found in values.items():
        means = {
            t: spread([v for (task, _), v in found.items() if task == t]) for t in _tasks(found)
        }
        row = [_spread(means[task]) if task in means else "" for task in tasks]
        complete = len(means) == len(tasks)
        whole = sum(mean.mean for mean in means.values()) / len(means)
        if len(tasks) > 1:
            row.append(f"{whole:.1f}" if complete else "")
        differences = list(paired(found, against).values()) if against else []
        if against:
            row.append(_against(differences) if recipe != baseline else "")
        place = sum(differences) / len(differences) if differences else whole
        cells_ = f"| {recipe} | " + " | ".join(row) + " |"
        rows.append((bool(differences) or complete, place, cells_))
    rows.sort(key=lambda row: row[:2], reverse=True)
    lines_ = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    return "\n".join([*lines_, *(row[2] for row in rows)])


def _tasks(values: Iterable[tuple[str, int]]) -> list[str]:
    return list(dict.fromkeys(task for task, _ in values))


def _spread(found: Spread) -> str:
    return f"{found.mean:.1f}" + (f" ± {found.deviation:.1f} ({found.n})" if found.n > 1 else "")


def _against(differences: Sequence[float]) -> str:
    """The mean of the differences of tasks and seeds that both have, with its interval."""
    if not differences:
        return ""
    found = interval(differences)
    told = found.low is not None and found.n > 2  # of two the interval says nothing
    reach = f" ({found.low:+.1f} to {found.high:+.1f})" if told else ""
    return f"{found.mean:+.1f}{reach}, {found.n} pair{'s' * (found.n > 1)}"


def _write(protocol: str) -> str:
    asked = yaml.safe_load((PROTOCOLS / f"{protocol}.yaml").read_text("utf-8"))
    lines = log_of(protocol).cells
    made = table(protocol, lines, asked["baseline"])
    comment = re.match(r"(#.*\n)*", (PROTOCOLS / f"{protocol}.yaml").read_text("utf-8"))
    assert comment is not None
    told = " ".join(line.lstrip("# ") for line in comment[0].splitlines())
    text = [
        f"# quality_{protocol}",
        "",
        f"{told} All that is fixed: protocols/{protocol}.yaml. In %; ± is the standard deviation "
        "over so many seeds; *against* has a 95 % t interval of the paired differences, which over "
        "all sparsities are averaged within a task and seed first. "
        f"{len(lines)} runs so far, each a line in quality_{protocol}.jsonl with its settings, "
        "recipe, machine, versions and command.",
        "",
        made,
    ]
    (machine.RESULTS / f"quality_{protocol}.md").write_text("\n".join(text), encoding="utf-8")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocol", choices=sorted(file.stem for file in PROTOCOLS.glob("*.yaml")))
    parser.add_argument("--data", type=Path, help="folder of the benchmark data")
    parser.add_argument("--work", type=Path, default=Path("quality"), help="scratch folder")
    parser.add_argument(
        "--only", nargs="+", default=["*"], help="TASK/RECIPE/SPARSITY/seedN, globs"
    )
    parser.add_argument("--again", action="store_true", help="make these runs again, and compare")
    parser.add_argument("--table", action="store_true", help="only make the table")
    arguments = parser.parse_args()
    protocol = arguments.protocol
    if arguments.table:
        print(_write(protocol))
        return
    if arguments.data is None:
        parser.error("--data is missing: the folder that holds mrpc, stsb, ...")
    quiet_transformers()
    again: bool = arguments.again
    made, claims = grid(protocol, arguments.data, arguments.work, again)
    log = log_of(protocol)
    refuse_stale(log.cells, made)
    asked = [c for c in made.wanted(arguments.only) if again or not log.find({"run": c.name})]
    names = [cell.name.removeprefix(RUNS) for cell in asked if cell.name.startswith(RUNS)]
    wanted = made.wanted(names) if names else []

    def keep(cell: Cell) -> None:
        line, before = _line(cell), log.find({"run": cell.name})
        if before is None and not again:
            log.add(line)
            _write(protocol)
        print(
            cell.name, line["metrics"], f"before: {before['metrics']}" if before else "", flush=True
        )

    def tell(event: Event) -> None:
        if event.kind == "done" and event.cell:
            keep(event.cell)
        elif event.kind in ("failed", "lost") and event.cell:
            print(event.cell.name, event.kind, event.error, flush=True)

    for cell in wanted:  # ended in a process that was stopped before it said so
        if cell.done:
            keep(cell)
    Worker(made, claims, only=wanted, tell=tell).work()
    print(_write(protocol))


if __name__ == "__main__":
    main()
