"""A comparison from the command line: its plan, its worker, and what is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from sentei.cli.app import FAILURE, errors, output, show_json, warn
from sentei.cli.progress import ProgressBar
from sentei.cli.running import exit_status
from sentei.compare.collect import collect
from sentei.compare.folder import begin
from sentei.compare.plan import Plan, load
from sentei.compare.runs import Runs
from sentei.compare.worker import Event, Tally, Worker
from sentei.models.quiet import quiet_transformers
from sentei.records import Comparison
from sentei.report import print_comparison, write_comparison
from sentei.report.facts import duration
from sentei.run.options import dashed
from sentei.run.saving import SaveError
from sentei.run.signals import raising
from sentei.run.training import Interrupted


def plan_of(file: Path | None, options: dict[str, Any], several: dict[str, Any]) -> Plan | None:
    """The plan that a command line declares; None where only a folder is named, which has one.

    Args:
        file: A plan file, instead of all options.
        options: Settings of the task, by flat name.
        several: Recipes, sparsities, seeds and baseline, as they were typed.

    Raises:
        ValueError: A file and options are named, something is missing, or it makes no plan.
    """
    typed = [*options, *several]
    if file and typed:
        raise ValueError(
            f"{dashed(typed[0])}: {file} says it all; set it there, or leave the file out"
        )
    if file:
        return load(file)
    if not typed:
        return None
    if "method" not in several and "recipe" not in several:
        raise ValueError("--method is missing: name what to compare, once for each")
    entry = {"set": several.get("set", []), "teacher": options.pop("teacher", None)}
    methods = several.get("method", [])
    entries = {name.replace(":", "-"): {"method": name, **entry} for name in methods}
    for path in several.get("recipe", []):
        if path.stem in entries:
            raise ValueError(f"--recipe {path}: {path.stem} is there twice; name them in a plan")
        entries[path.stem] = {"recipe": str(path), **entry}
    if "model" not in options:
        raise ValueError("--model is missing: a name on the hub, a folder, or demo")
    source = options.get("task") or Path(options.get("train", "data")).stem
    task = re.sub(r"[^A-Za-z0-9]+", "-", source).strip("-") or "data"
    data = {
        "tasks": {task: {name: _plain(value) for name, value in options.items()}},
        "recipes": entries,
        "sparsities": several.get("sparsity", [0.8]),
        "seeds": several.get("seed", [42]),
    }
    if "baseline" in several:
        data["baseline"] = several["baseline"]
    return load(data)


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def kept(out: Path) -> Runs:
    """The runs of the comparison in a folder.

    Raises:
        ValueError: There is none.
    """
    return Runs(load(out / "plan.yaml"), out)


def work(plan: Plan | None, out: Path, *, only: list[str] | None, json: bool, **how: Any) -> None:
    """Begin a comparison, join it or go on, and show what came of it.

    Args:
        plan: None goes on with the plan in ``out``.
        out: Folder of the comparison.
        only: Globs of the runs to make; None makes all.
        json: Whether to print one JSON object instead of words.
        how: More of :class:`~sentei.compare.worker.Worker`'s arguments.

    Raises:
        ValueError: The plan does not fit what is in ``out``, or no run is called so.
        typer.Exit: It was stopped, or a run failed.
    """
    quiet_transformers()
    runs = begin(plan, out)
    worker = Worker(
        runs,
        only=runs.select(only) if only else None,
        watch=lambda prepared: [] if json else [ProgressBar(errors, prepared.corpus.headline)],
        tell=(lambda event: None) if json else _tell,
        **how,
    )
    go_on = f"sentei compare --out {shlex.quote(str(out))}"
    try:
        with raising():
            complete = worker.work()
    except SaveError as error:
        raise SaveError(error.failure, error.remedy, f"go on with: {go_on}") from error
    except (Interrupted, KeyboardInterrupt) as stop:
        if json:
            show_json({"interrupted": "stopped; all that is done is kept", "resume": go_on})
        else:
            _write(runs)
            warn(f"Stopped; what is done is kept. Go on with: {go_on}")
        raise typer.Exit(exit_status(stop)) from None
    show(runs, json)
    failed = not complete and any(run.error_file.is_file() for run in runs.values())
    if failed:
        raise typer.Exit(FAILURE)


def show(runs: Runs, json: bool) -> None:
    """Write the report of what is done, and print it."""
    comparison = _write(runs)
    if json:
        show_json(comparison)
        return
    print_comparison(comparison, output)
    output.print(f"\nThe page: {runs.out / 'compare.html'}")


def _write(runs: Runs) -> Comparison:
    comparison = collect(runs)
    try:
        write_comparison(comparison, runs.out)
    except ModuleNotFoundError as error:
        warn(f"{error}; then write it with: sentei compare --out {runs.out} --report")
    return comparison


def _tell(event: Event) -> None:
    where = f"[{event.tally.done}/{event.tally.total}]"
    if event.what == "wait":
        errors.print(f"{where} waiting for other workers")
        return
    assert event.run is not None
    name = event.run.name
    if event.what == "begin":
        errors.print(f"{where} {name} ({_clock(event.tally)})", soft_wrap=True)
    elif event.report is not None:
        metric = event.report.metric
        value = f"{metric} {event.report.sparse[metric]:.4f}"
        errors.print(f"{where} {name}: {value}", soft_wrap=True)
    elif event.what == "failed":
        warn(f"{where} {name} failed: {event.error}")
    else:
        warn(f"{where} {name}: {event.error}")


def _clock(tally: Tally) -> str:
    left = "" if tally.left is None else f", about {duration(tally.left)} left"
    return f"{duration(tally.seconds)} so far{left}"
