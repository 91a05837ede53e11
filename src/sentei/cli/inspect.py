"""``sentei inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sentei.cli.app import JsonOption, show_json, verb
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
from sentei.run.settings import check_output


@verb
@with_settings()
def inspect(
    options: dict[str, Any],
    *,
    method: MethodOption = None,
    sparsity: SparsityOption = None,
    pattern: PatternOption = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    freeze_masks: FreezeOption = False,
    out: Annotated[Path | None, typer.Option(help="The folder the run would write to.")] = None,
    names: Annotated[bool, typer.Option("--names", help="List every prunable weight.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what `prune` with the same options would do, without training."""
    from sentei.cli.inspection import print_inspection
    from sentei.models.quiet import quiet_transformers
    from sentei.run.inspect import check_disk
    from sentei.run.inspect import inspect as describe
    from sentei.run.prepare import prepare

    quiet_transformers()
    settings = make_settings(
        options, method, sparsity, recipe, overrides, pattern, freeze_masks=freeze_masks
    )
    if out:
        check_output(out)
    prepared = prepare(settings)
    if out:
        check_disk(prepared, out)
    run = describe(prepared)
    if json:
        show_json(run)
        return
    print_inspection(run, names=names)
