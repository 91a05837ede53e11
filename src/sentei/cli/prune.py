"""``sentei prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sentei import report as reports
from sentei.cli.app import (
    INTERRUPTED,
    JsonOption,
    errors,
    output,
    show_json,
    verb,
    warn,
)
from sentei.cli.options import (
    FreezeOption,
    MethodOption,
    PatternOption,
    RecipeOption,
    SetOption,
    SparsityOption,
    make_settings,
    with_settings,
)
from sentei.records import RunReport
from sentei.run.settings import Settings, absolute, check_output


@verb
@with_settings()
def prune(
    given: dict[str, Any],
    *,
    method: MethodOption = None,
    sparsity: SparsityOption = None,
    pattern: PatternOption = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    freeze_masks: FreezeOption = False,
    out: Annotated[Path, typer.Option(help="Folder for the run; new or empty.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out; needs no other option.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Prune a model while fine-tuning it on a task."""
    if resume:
        settings = resumed(out, given, [method, sparsity, pattern, recipe, overrides, freeze_masks])
        if settings is None:
            done = reports.read(out)
            show(done, out, json)
            return
    else:
        settings = make_settings(
            given, method, sparsity, recipe, overrides, pattern, freeze_masks=freeze_masks
        )
        check_output(out)
    run_and_show(settings, out, resume=resume, json=json)


def run_and_show(settings: Settings, out: Path, *, resume: bool, json: bool) -> None:
    """Run, write the report, print it."""
    from sentei.cli.progress import ProgressBar
    from sentei.models.quiet import quiet_transformers
    from sentei.run.inspect import check_disk
    from sentei.run.prepare import prepare
    from sentei.run.run import prune as run
    from sentei.run.training import Interrupted

    quiet_transformers()
    if not json:
        errors.print(f"Loading {settings.model} and its data ...")
    prepared = prepare(settings)
    check_disk(prepared, out)
    if prepared.teacher and not json:
        learns = prepared.teacher.match.describe()
        errors.print(f"Teacher: {prepared.teacher.name}; {learns}", soft_wrap=True, markup=False)
        for note in prepared.teacher.notes:
            errors.print(f"Note: {note}", soft_wrap=True, markup=False)
    if prepared.untaught and not json:
        errors.print(f"Teacher: none; {prepared.untaught}", soft_wrap=True, markup=False)
    for note in () if json else prepared.notes:
        errors.print(f"Note: {note}", soft_wrap=True, markup=False)
    bar = ProgressBar(errors, prepared.corpus.metrics[0])
    try:
        found = run(prepared, out, resume=resume, watch=[] if json else [bar])
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
        reports.write(found, out)
    except ModuleNotFoundError as error:
        warn(f"{error}; then write it with: sentei report {out}")
    show(found, out, json)


def resumed(out: Path, given: dict[str, Any], others: list[object]) -> Settings | None:
    """The settings of the run in ``out``; None when it has finished."""
    settings = Settings.read(out / "run.yaml")
    begun = {k: absolute(k, getattr(settings, k)) for k in given}
    different = {k: v for k, v in given.items() if str(begun[k]) != str(absolute(k, v))}
    if different:
        name, value = next(iter(different.items()))
        raise ValueError(
            f"--{name.replace('_', '-')} {value}: the run in {out} was begun with "
            f"{getattr(settings, name)}; leave the option out, or begin a new run"
        )
    if any(others):
        raise ValueError(
            f"--resume goes on with {out / 'recipe.yaml'} as it is: leave out --method, "
            "--sparsity, --pattern, --recipe, --set and --freeze-masks, or begin a new run"
        )
    return None if (out / "report.json").is_file() else settings


def show(found: RunReport, out: Path, json: bool) -> None:
    """Print a report, and where its run is."""
    if json:
        show_json(found)
        return
    reports.print_console(found, output)
    output.print(f"\nThe pruned model: {out / 'model'}\nThe report:       {out / 'report.html'}")
