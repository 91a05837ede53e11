"""A run begun or gone on with, and what is said of it meanwhile and at its end."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from sentei.cli.app import INTERRUPTED, errors, output, show_json, warn
from sentei.distributed import is_main
from sentei.locks import FolderLock
from sentei.run.options import dashed, flat, written
from sentei.run.settings import Settings, check_output
from sentei.run.signals import Stopped, raising, status
from sentei.tasks import kinds

if TYPE_CHECKING:
    from sentei.records import RunReport
    from sentei.run.prepare import Prepared


class Ran(NamedTuple):
    """A run that has finished; ``passed_over`` says what of earlier processes was not used."""

    report: RunReport
    passed_over: tuple[str, ...]


def run_and_show(settings: Settings, out: Path, *, resume: bool, json: bool) -> None:
    """Run, write the report, print it."""
    ran = run(settings, out, resume=resume, json=json)
    show(ran.report, out, json, passed_over=ran.passed_over)


def run(settings: Settings, out: Path, *, resume: bool, json: bool) -> Ran:
    """Run, in a folder that nobody else writes to meanwhile, and write the report.

    Raises:
        typer.Exit: A signal stopped it.
        ValueError: Another process is at work in the folder, or it holds something.
    """
    from sentei.run.training import Interrupted

    try:
        with raising(), _owning(out, resume=resume):
            return _run(settings, out, resume=resume, json=json)
    except (Interrupted, KeyboardInterrupt) as stop:
        begun = (out / "run.yaml").is_file()
        command = f"sentei prune --out {shlex.quote(str(out))} --resume"
        said = str(stop) or "stopped"
        if json:
            show_json({"interrupted": said, "resume": command if begun else None})
        elif begun:
            warn(f"Stopped: {said}. Go on with: {command}")
        else:
            warn(f"Stopped: {said}, before anything was written.")
        raise typer.Exit(exit_status(stop)) from None


def exit_status(stop: BaseException) -> int:
    """The exit status of a process that was stopped: by a signal, or by Ctrl-C."""
    from sentei.run.training import Interrupted

    if isinstance(stop, Interrupted):
        return stop.status
    return status(stop.number) if isinstance(stop, Stopped) else INTERRUPTED


@contextmanager
def _owning(out: Path, *, resume: bool) -> Iterator[None]:
    """Of the processes of a launcher, the first owns the folder for all."""
    if not is_main():
        yield
        return
    if not resume:
        check_output(out)
    with FolderLock(out):
        if not resume:
            check_output(out)  # another may have begun since
        yield


def _run(settings: Settings, out: Path, *, resume: bool, json: bool) -> Ran:
    from sentei.cli.progress import ProgressBar
    from sentei.models.quiet import quiet_transformers
    from sentei.run.inspect import check_disk
    from sentei.run.prepare import prepare
    from sentei.run.result import finish
    from sentei.run.run import prune

    quiet_transformers()
    if not json:
        errors.print(f"Loading {settings.model} and its data ...")
    prepared = prepare(settings)
    check_disk(prepared, out)
    if not json:
        _announce(prepared)
    passed_over: list[str] = []

    def tell(said: str) -> None:
        passed_over.append(said)
        warn(said)

    bar = ProgressBar(errors, prepared.corpus.headline)
    try:
        report = prune(prepared, out, resume=resume, watch=[] if json else [bar], tell=tell)
    finally:
        bar.close()
    if is_main():
        try:
            finish(report, out)
        except ModuleNotFoundError as error:
            warn(f"{error}; then write it with: sentei report {out}")
    return Ran(report, tuple(passed_over))


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
    from sentei.run.result import why_unfinished

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
    why = why_unfinished(out)
    if why is None:
        report = reports.read(out)
        if not (out / "report.html").exists():  # the process ended just before
            with suppress(ModuleNotFoundError, OSError):
                reports.write_page(report, out)
        show(report, out, json)
        return None
    if (out / "report.json").exists():
        warn(f"The run had finished, and its result is made again: {why}")
    return settings


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


def show(report: RunReport, out: Path, json: bool, *, passed_over: Sequence[str] = ()) -> None:
    """Print a run's report, and how fast its model is where that was measured."""
    from sentei import report as reports

    speed = reports.read_speed(out)
    if json:
        timed = {"speed": speed.model_dump(mode="json")} if speed else {}
        unused = {"passed_over": list(passed_over)} if passed_over else {}
        show_json(report.model_dump(mode="json") | timed | unused)
        return
    reports.print_console(report, output)
    output.print(f"\nThe pruned model: {out / 'model'}\nThe report:       {out / 'report.html'}")
    task = kinds.known().get(report.settings.get("kind", ""))
    if task is not None and task.one_pass:
        output.print(f"How fast it is:   sentei bench {out}")
    if speed:
        output.print(f"\n{reports.in_short(speed)}", soft_wrap=True)
