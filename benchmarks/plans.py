"""A benchmark that is a plan of ``sentei compare``: made, and kept in results run by run.

    python -m benchmarks.NAME --data DATA --work FOLDER --only 'sst2/*/0.9/seed1'

writes the data sets and the comparison into FOLDER, makes the runs of the plan that the results do
not have, appends a line for each as it ends, and writes the table of all of them. Stopped, it goes
on; started twice on the same FOLDER, the two share the work.

``--again`` makes runs that the results have in a folder beside that, prints both numbers, and
appends nothing; remove that folder to make them once more. ``--table`` only writes the table.
Without ``--only`` all that the plan asks for is made.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.log import Line, Log
from sentei import report as reports
from sentei.compare.choices import TRAINING
from sentei.compare.folder import begin
from sentei.compare.plan import load
from sentei.compare.runs import RUNS, Run, Runs
from sentei.compare.worker import Event, Worker
from sentei.models.quiet import quiet_transformers
from sentei.run.options import flat
from sentei.run.settings import Settings

PROTOCOLS = Path(__file__).parent / "protocols"
PATIENCE = 600.0
"""Seconds of silence after which a run is taken over: on a busy machine much may stand still."""

RENAMED = {
    "kind": {"latent": "straight_through"},
    "surrogate": {"straight_through": "identity"},
}
"""Values in recipes that had other names when some lines were written."""


@dataclass(frozen=True)
class Benchmark:
    """What is measured under a protocol.

    ``key`` tells the line of a run from others. ``line`` is what is kept of a finished run, beside
    its key, from the folder of the data too. ``settings`` writes the data of a task, a name of the
    protocol, below a folder and gives the task's settings. ``start`` makes what these name and is
    costly, for the tasks of some runs. ``write`` writes results/NAME.md and returns its table.
    """

    protocol: str
    log: Log
    key: Callable[[Run], Line]
    line: Callable[[Run, Path], Line]
    settings: Callable[[str, dict[str, Any], Path, Path], dict[str, Any]]
    write: Callable[[], str]
    start: Callable[[set[str], Path, Path], None] = lambda tasks, data, work: None

    def runs(self, data: Path, work: Path, *, again: bool = False) -> Runs:
        """The comparison in ``work``, begun or joined, with its data written."""
        plan = protocol(self.protocol)
        for name, task in plan["tasks"].items():
            plan["tasks"][name] = self.settings(name, task, data, work)
        return begin(load(plan), work / (f"{self.protocol}-again" if again else self.protocol))


def protocol(name: str) -> dict[str, Any]:
    """A plan as it is written."""
    plan: dict[str, Any] = yaml.safe_load((PROTOCOLS / f"{name}.yaml").read_text("utf-8"))
    return plan


def settings_of(run: Run) -> Line:
    """How a finished run was made: its training, complete, and its recipe."""
    settings = Settings.read(run.folder / "run.yaml")
    options = flat(settings.model_dump(mode="json"))
    report = reports.read(run.folder)
    return {
        "pruned": report.pruning.pruned,
        "prunable": report.pruning.prunable,
        "steps": report.pruning.total_steps,
        "seconds": report.seconds["train"],
        "settings": {name: options[name] for name in (*TRAINING, "max_length", "holdout")},
        "teacher": bool(settings.recipe["distill"]),
        "declared": settings.recipe,
    }


def refuse_stale(lines: Sequence[Line], runs: Runs) -> None:
    """Refuse lines that the protocol would make otherwise today: names do not tell them apart.

    What a search chose is not compared, nor settings that came after a line, nor lines that do not
    name their run.

    Raises:
        ValueError: Names the first such run, and what differs.
    """
    for line in lines:
        run = runs.get(line.get("run", ""))
        if run is None or run.search:
            continue
        options = flat(run.settings.model_dump(mode="json"))
        settings = {name: options[name] for name in line["settings"]}
        parts = {k: v for k, v in _renamed(line["declared"]).items() if k != "method"}
        parts.setdefault("reconstruction", None)  # before there was one
        for was, now in ((line["settings"], settings), (parts, run.settings.recipe)):
            if difference := _difference(was, now):
                raise ValueError(
                    f"{run.name} is in the results with {difference}: give what the protocol asks "
                    "for now another name, or take the line out"
                )


def _renamed(part: Any, key: str = "") -> Any:
    """A part of a recipe in the names of today."""
    if isinstance(part, dict):
        return {name: _renamed(value, name) for name, value in part.items()}
    if isinstance(part, list):
        return [_renamed(value) for value in part]
    return RENAMED[key].get(part, part) if key in RENAMED else part


def _difference(was: Any, now: Any, path: str = "") -> str:
    """The first place where a line says something else; empty if none does."""
    if isinstance(was, dict) and isinstance(now, dict):
        places = (_difference(was[key], now.get(key), f"{path}.{key}") for key in was)
        return next(filter(None, places), "")
    if isinstance(was, list | tuple) and isinstance(now, list | tuple) and len(was) == len(now):
        places = (
            _difference(a, b, f"{path}.{i}") for i, (a, b) in enumerate(zip(was, now, strict=True))
        )
        return next(filter(None, places), "")
    return "" if was == now else f"{path.removeprefix('.')}={was!r}, which is {now!r} now"


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options of all benchmarks that are plans."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, help="folder of the benchmark data")
    options.add_argument("--work", type=Path, default=Path("benchmarking"), help="scratch folder")
    options.add_argument("--only", nargs="+", default=["*"], help="TASK/RECIPE/SPARSITY/seedN")
    options.add_argument("--again", action="store_true", help="make these again, and compare")
    options.add_argument("--table", action="store_true", help="only write the table")
    return options


def make(benchmark: Benchmark, arguments: argparse.Namespace) -> None:
    """Make what the results lack, and write the table."""
    if arguments.table:
        print(benchmark.write())
        return
    if arguments.data is None:
        raise SystemExit("--data is missing: the folder that holds mrpc, stsb, ...")
    quiet_transformers()
    again: bool = arguments.again
    runs = benchmark.runs(arguments.data, arguments.work, again=again)
    log = benchmark.log
    refuse_stale(log.lines, runs)
    missing = [
        run for run in runs.select(arguments.only) if again or not log.find(benchmark.key(run))
    ]
    names = [run.name.removeprefix(RUNS) for run in missing if run.name.startswith(RUNS)]
    selected = runs.select(names) if names else []

    def keep(run: Run) -> None:
        key = benchmark.key(run)
        before, line = log.find(key), {**key, **benchmark.line(run, arguments.data)}
        if before is None and not again:
            log.add(line)
            benchmark.write()
        print(run.name, _numbers(line), _numbers(before, "before: "), flush=True)

    def tell(event: Event) -> None:
        if event.what == "done" and event.run:
            keep(event.run)
        elif event.what in ("failed", "lost") and event.run:
            print(event.run.name, event.what, event.text, flush=True)

    benchmark.start({run.task for run in selected}, arguments.data, arguments.work)
    for run in selected:  # ended in a process that was stopped before it said so
        if run.done:
            keep(run)
    Worker(runs, only=selected, patience=PATIENCE, tell=tell).work()
    print(benchmark.write())


def _numbers(line: Mapping[str, Any] | None, label: str = "") -> str:
    return f"{label}{line.get('metrics') or line.get('test')}" if line else ""
