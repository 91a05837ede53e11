"""``sentei verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from sentei.cli.app import FAILURE, JsonOption, output, show_json, verb
from sentei.cli.options import with_settings


@verb
@with_settings("trust_remote_code")
def verify(
    options: dict[str, Any],
    *,
    folder: Annotated[Path, typer.Argument(help="Folder of a run, or of a model.")],
    sparsity: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Also demand at least this sparsity, in [0, 1): of the prunable weights, or where "
            "no report says which those are, of all parameters.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check a folder's claims: sparsity as stated, finite weights, loads with transformers.

    Of a packed model every checksum too.
    """
    from sentei import report as reports
    from sentei.models.quiet import quiet_transformers
    from sentei.run.pack import PLACE
    from sentei.run.verify import verify as check

    quiet_transformers()
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    of_run = folder.absolute().parent if folder.absolute().name in ("model", PLACE) else folder
    reported = next((f for f in (folder, of_run) if (f / "report.json").is_file()), None)
    claims = reports.read(reported).pruning if reported else None
    checks = check(folder, claims, sparsity, **options)
    if json:
        show_json([one.model_dump() for one in checks])
    else:
        if claims is None:
            output.print("No report.json here, so no claims but those of the command line.")
        for one in checks:
            mark = ("holds", "green") if one.holds else ("FAILS", "bold red")
            line = Text.assemble(mark, f"  {one.claim}: {one.evidence}")
            output.print(line, soft_wrap=True)
    if not all(one.holds for one in checks):
        raise typer.Exit(FAILURE)
