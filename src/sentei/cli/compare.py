"""``sentei compare``."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sentei.cli.app import (
    FAILURE,
    INTERRUPTED,
    JsonOption,
    errors,
    output,
    show_json,
    verb,
    warn,
)
from sentei.cli.options import with_settings
from sentei.records import Comparison
from sentei.report import print_comparison, write_comparison
from sentei.report.facts import duration
from sentei.run.options import places

if TYPE_CHECKING:
    from sentei.compare.plan import Plan
    from sentei.compare.runs import Runs
    from sentei.compare.worker import Event, Tally

SETTINGS = tuple(name for name in places() if name not in ("seed", "teacher_cache", "holdout"))
"""All but those that a plan has words of its own for; of seeds it takes several."""


@verb
@with_settings(*SETTINGS)
def compare(
    options: dict[str, Any],
    *,
    plan: Annotated[Path | None, typer.Argument(help="Plan (YAML) instead of options.")] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Method to compare; say it again for more.")
    ] = None,
    recipes: Annotated[
        list[Path] | None, typer.Option("--recipe", help="Recipe file (YAML) to compare.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one value of every recipe: --set schedule.every=5."),
    ] = None,
    sparsities: Annotated[
        list[float] | None, typer.Option("--sparsity", help="In [0, 1) [default: 0.8].")
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="One run of all for each [default: 42].")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="What differences are against [default: the first recipe].")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder; new, or with a comparison to go on with.")],
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Make only these runs and what they need: 'TASK/RECIPE/0.9/seed1', '*/0.9/*'."
        ),
    ] = None,
    launch: Annotated[
        str | None,
        typer.Option(help="Start every run with this, such as 'accelerate launch --multi_gpu'."),
    ] = None,
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds of silence after which a run is taken over.")
    ] = 120.0,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait/--no-wait", help="Stay while others work, to take over [default: wait]."
        ),
    ] = True,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep checkpoints of finished runs, models of trials.")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Only write the report of what is done.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Compare recipes at sparsities, over tasks and seeds; begin, join or go on.

    Start it again to go on, and start more of it, on any machine that sees the folder, to go
    faster: no run is made twice. A plan file says more than options can: tasks, and searches.
    """
    from sentei.compare.plan import load
    from sentei.compare.runs import Runs

    several = {
        "method": methods,
        "recipe": recipes,
        "set": changes,
        "sparsity": sparsities,
        "seed": seeds,
        "baseline": baseline,
    }
    declared = _plan(plan, options, {name: value for name, value in several.items() if value})
    if report:
        if declared:
            raise ValueError("--report tells what is in --out: leave out the plan and its options")
        _show(Runs(load(out / "plan.yaml"), out), json)
        return
    _work(declared, out, only, launch, patience, wait, keep, json)


def _plan(file: Path | None, options: dict[str, Any], several: dict[str, Any]) -> Plan | None:
    """The plan asked for; None where only a folder is named, which has one."""
    from sentei.compare.plan import load

    typed = [name.replace("_", "-") for name in (*options, *several)]
    if file and typed:
        raise ValueError(f"--{typed[0]}: {file} says it all; set it there, or leave the file out")
    if file:
        return load(file)
    if not typed:
        return None
    if "method" not in several and "recipe" not in several:
        raise ValueError("--method is missing: name what to compare, once for each")
    entry = {"set": several.get("set", []), "teacher": options.pop("teacher", None)}
    entries = {name: {"method": name, **entry} for name in several.get("method", [])}
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


def _work(
    plan: Plan | None,
    out: Path,
    only: list[str] | None,
    launch: str | None,
    patience: float,
    wait: bool,
    keep: bool,
    json: bool,
) -> None:
    from sentei.cli.progress import ProgressBar
    from sentei.compare.folder import begin
    from sentei.compare.worker import Worker
    from sentei.models.quiet import quiet_transformers
    from sentei.run.training import Interrupted

    quiet_transformers()
    runs = begin(plan, out)
    worker = Worker(
        runs,
        only=runs.select(only) if only else None,
        patience=patience,
        watch=lambda prepared: [] if json else [ProgressBar(errors, prepared.corpus.headline)],
        tell=(lambda event: None) if json else _tell,
        launch=launch,
        wait=wait,
        keep=keep,
    )
    try:
        with _term_is_interrupt():
            complete = worker.work()
    except (Interrupted, KeyboardInterrupt):
        go_on = f"sentei compare --out {out}"
        if json:
            show_json({"interrupted": "stopped; all that is done is kept", "resume": go_on})
        else:
            _write(runs)
            warn(f"Stopped; what is done is kept. Go on with: {go_on}")
        raise typer.Exit(INTERRUPTED) from None
    _show(runs, json)
    failed = not complete and any(run.error_file.is_file() for run in runs.values())
    if failed:
        raise typer.Exit(FAILURE)


def _show(runs: Runs, json: bool) -> None:
    comparison = _write(runs)
    if json:
        show_json(comparison)
        return
    print_comparison(comparison, output)
    output.print(f"\nThe page: {runs.out / 'compare.html'}")


def _write(runs: Runs) -> Comparison:
    from sentei.compare.collect import collect

    comparison = collect(runs)
    try:
        write_comparison(comparison, runs.out)
    except ModuleNotFoundError as error:
        warn(f"{error}; then write it with: sentei compare --out {runs.out} --report")
    return comparison


def _tell(event: Event) -> None:
    where = f"[{event.tally.done}/{event.tally.total}]"
    if event.what == "wait":
        errors.print(f"{where} waiting for other workers", markup=False)
        return
    assert event.run is not None
    name = event.run.name
    if event.what == "begin":
        errors.print(f"{where} {name} ({_clock(event.tally)})", markup=False, soft_wrap=True)
    elif event.report is not None:
        metric = event.report.metric
        value = f"{metric} {event.report.sparse[metric]:.4f}"
        errors.print(f"{where} {name}: {value}", markup=False, soft_wrap=True)
    elif event.what == "failed":
        warn(f"{where} {name} failed: {event.error}")
    else:
        warn(f"{where} {name}: {event.error}")


def _clock(tally: Tally) -> str:
    left = "" if tally.left is None else f", about {duration(tally.left)} left"
    return f"{duration(tally.seconds)} so far{left}"


@contextmanager
def _term_is_interrupt() -> Iterator[None]:
    """What ends a job on a cluster leaves a checkpoint, as Ctrl-C does, also in the background."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)  # a shell has it ignored in the background
        (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
