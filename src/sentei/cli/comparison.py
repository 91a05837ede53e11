"""A comparison from the command line: its plan, its worker, and what is printed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from transformers import TrainerCallback

from sentei.cli.app import FAILURE, errors, output, show_json, warn
from sentei.cli.progress import ProgressBar, lines
from sentei.cli.running import exit_status
from sentei.compare.collect import collect
from sentei.compare.folder import begin
from sentei.compare.plan import Plan, load
from sentei.compare.runs import Runs
from sentei.compare.states import Tally
from sentei.compare.worker import Event, Worker
from sentei.models.quiet import quiet_transformers
from sentei.records import Comparison
from sentei.report import print_comparison, write_comparison
from sentei.report.facts import duration
from sentei.run.options import dashed
from sentei.run.prepare import Prepared
from sentei.run.saving import SaveError
from sentei.run.signals import raising
from sentei.run.training import Interrupted

if TYPE_CHECKING:
    from sentei.compare.cluster import Cluster


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


def work(
    plan: Plan | None,
    out: Path,
    *,
    only: list[str] | None,
    ray: str | None,
    shares: dict[str, Any],
    json: bool,
    **how: Any,
) -> None:
    """Begin a comparison, join it or go on, and show what came of it.

    Args:
        plan: None goes on with the plan in ``out``.
        out: Folder of the comparison.
        only: Globs of the runs to make; None makes all.
        ray: Address of a cluster; None makes the runs in this process.
        shares: What each run gets of the cluster, as far as it was said.
        json: Whether to print one JSON object instead of words.
        how: Arguments that :class:`~sentei.compare.worker.Worker` and
            :class:`~sentei.compare.cluster.Cluster` have in common.

    Raises:
        ModuleNotFoundError: A cluster needs an extra that is not installed.
        ValueError: The plan does not fit what is in ``out``, no run is called so, or the cluster
            cannot be used.
        typer.Exit: It was stopped, or a run failed.
    """
    if shares and ray is None:
        raise ValueError(f"{dashed(next(iter(shares)))} is of a cluster: name it, as --ray auto")
    if ray is not None:
        import sentei.compare.cluster  # noqa: F401  # which says what is missing
    quiet_transformers()
    runs = begin(plan, out)
    how |= {"only": runs.select(only) if only else None}
    how |= {"tell": (lambda event: None) if json else _tell}
    worker = _worker(runs, json, how) if ray is None else _cluster(runs, ray, shares, json, how)
    typed = {"ray": shlex.quote(ray)} if ray else {}
    typed |= {name: f"{value:g}" for name, value in shares.items()}
    more = "".join(f" {dashed(name)} {value}" for name, value in typed.items())
    go_on = f"sentei compare --out {shlex.quote(str(out))}{more}"
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


def _worker(runs: Runs, json: bool, how: dict[str, Any]) -> Worker:
    def watch(prepared: Prepared) -> list[TrainerCallback]:
        return [] if json else [ProgressBar(errors, prepared.corpus.headline)]

    return Worker(runs, watch=watch, **how)


def _cluster(
    runs: Runs, address: str, shares: dict[str, Any], json: bool, how: dict[str, Any]
) -> Cluster:
    from sentei.compare.cluster import Cluster, Shares

    return Cluster(runs, Shares(address, **shares), lines=None if json else lines, **how)


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
    if event.run is None:
        errors.print(f"{where} {event.text or 'waiting for other workers'}", soft_wrap=True)
        return
    name = event.run.name
    if event.what == "begin":
        at = f"on {event.machine}, " if event.machine else ""
        errors.print(f"{where} {name} ({at}{_clock(event.tally)})", soft_wrap=True)
    elif event.what == "progress":
        errors.print(f"{name}: {event.text}", soft_wrap=True)
    elif event.report is not None:
        metric = event.report.metric
        value = f"{metric} {event.report.sparse[metric]:.4f}"
        errors.print(f"{where} {name}: {value}", soft_wrap=True)
    elif event.what == "failed":
        warn(f"{where} {name} failed: {event.text}")
    else:
        warn(f"{where} {name}: {event.text}")


def _clock(tally: Tally) -> str:
    left = "" if tally.left is None else f", about {duration(tally.left)} left"
    return f"{duration(tally.seconds)} so far{left}"
