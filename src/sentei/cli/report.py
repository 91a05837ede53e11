"""``sentei report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentei.cli.app import JsonOption, output, show_json, verb
from sentei.locks import FolderLock


@verb
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    json: JsonOption = False,
) -> None:
    """Print a run's report and write its page again."""
    from sentei import report as reports

    if (run / "config.json").is_file():
        raise ValueError(
            f"{run} is a model's folder, and reports are in a run's: name that one. For a model "
            f"there are sentei verify {run} and sentei evaluate --model {run}"
        )
    facts = reports.read(run)
    if json:
        show_json(facts)
        return
    with FolderLock(run, patience=10.0):
        reports.write_page(facts, run)
    reports.print_console(facts, output)
    output.print(f"\nThe page: {run / 'report.html'}")
