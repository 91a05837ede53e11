"""A run begun or gone on with, and what is said of it meanwhile and at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sentei.cli.app import INTERRUPTED, errors, output, show_json, warn
from sentei.run.options import dashed, flat, written
from sentei.run.settings import Settings
from sentei.tasks import kinds

if TYPE_CHECKING:
    from sentei.records import RunReport
    from sentei.run.prepare import Prepared


def run_and_show(settings: Settings, out: Path, *, resume: bool, json: bool) -> None:
    """Run, write the report, print it."""
    show(run(settings, out, resume=resume, json=json), out, json)


def run(settings: Settings, out: Path, *, resume: bool, json: bool) -> RunReport:
    """Run, and write the report."""
    from sentei import report as reports
    from sentei.cli.progress import ProgressBar
    from sentei.models.quiet import quiet_transformers
    from sentei.run.inspect import check_disk
    from sentei.run.prepare import prepare
    from sentei.run.run import prune
    from sentei.run.training import Interrupted

    quiet_transformers()
    if not json:
        errors.print(f"Loading {settings.model} and its data ...")
    prepared = prepare(settings)
    check_disk(prepared, out)
    if not json:
        _announce(prepared)
    bar = ProgressBar(errors, prepared.corpus.headline)
    try:
        report = prune(prepared, out, resume=resume, watch=[] if json else [bar])
    except Interrupted as stop:
        bar.close()
        if json:
            show_json({"interrupted": str(stop), "resume": f"sentei prune --out {out} --resume"})
        else:
            warn(f"Stopped: {stop}. Go on with: sentei prune --out {out} --resume")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        bar.close()
    try:
        reports.write(report, out)
    except ModuleNotFoundError as error:
        warn(f"{error}; then write it with: sentei report {out}")
    return report


def resumed(
    out: Path, options: Mapping[str, Any], others: Sequence[object], json: bool
) -> Settings | None:
    """The settings of the run in ``out``; None when it has finished, and its report is shown.

    Args:
        out: Folder of the run.
        options: Settings that were typed, by flat name; they must be the run's.
        others: Options that were typed and are no settings; there must be none.
        json: How to show a report.

    Raises:
        ValueError: There is no run, or it was begun otherwise.
    """
    from sentei import report as reports

    settings = Settings.read(out / "run.yaml")
    begun = flat(settings.model_dump(mode="json"))
    for name, value in options.items():
        if str(begun.get(name)) != str(written(name, value)):
            raise ValueError(
                f"{dashed(name)} {value}: the run in {out} was begun with {begun.get(name)}; leave "
                "the option out, or begin a new run"
            )
    if any(others):
        raise ValueError(
            f"--resume goes on with {out / 'recipe.yaml'} as it is: leave out --method, "
            "--sparsity, --pattern, --recipe, --set and --freeze-masks, or begin a new run"
        )
    if not (out / "report.json").is_file():
        return settings
    show(reports.read(out), out, json)
    return None


def _announce(prepared: Prepared) -> None:
    """Who teaches, and what is taken for granted."""
    teacher = prepared.teacher
    if teacher:
        learns = teacher.match.describe()
        errors.print(f"Teacher: {teacher.name}; {learns}", soft_wrap=True)
    if prepared.untaught:
        errors.print(f"Teacher: none; {prepared.untaught}", soft_wrap=True)
    for note in (*(teacher.notes if teacher else ()), *prepared.notes):
        errors.print(f"Note: {note}", soft_wrap=True)


def show(report: RunReport, out: Path, json: bool) -> None:
    """Print a run's report, and how fast its model is where that was measured."""
    from sentei import report as reports

    speed = reports.read_speed(out)
    if json:
        timed = {"speed": speed.model_dump(mode="json")} if speed else {}
        show_json(report.model_dump(mode="json") | timed)
        return
    reports.print_console(report, output)
    output.print(f"\nThe pruned model: {out / 'model'}\nThe report:       {out / 'report.html'}")
    task = kinds.known().get(report.settings.get("kind", ""))
    if task is not None and task.one_pass:
        output.print(f"How fast it is:   sentei bench {out}")
    if speed:
        output.print(f"\n{reports.in_short(speed)}", soft_wrap=True)
