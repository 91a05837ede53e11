"""``sentei prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sentei.cli.app import JsonOption, verb
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
from sentei.cli.running import resumed, run_and_show


@verb
@with_settings()
def prune(
    options: dict[str, Any],
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
        others = [method, sparsity, pattern, recipe, overrides, freeze_masks]
        settings = resumed(out, options, others, json)
        if settings is None:
            return
    else:
        settings = make_settings(
            options, method, sparsity, recipe, overrides, pattern, freeze_masks=freeze_masks
        )
    run_and_show(settings, out, resume=resume, json=json)
