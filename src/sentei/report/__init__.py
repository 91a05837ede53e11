"""Reports: ``report.json`` for machines, one self-contained ``report.html``, a console summary."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from sentei.records import RunReport
from sentei.report.console import print_console
from sentei.report.files import drawing, replace

__all__ = ["print_console", "read", "render_html", "write"]


def write(report: RunReport, folder: Path, *, page: bool = True) -> None:
    """Writes ``report.json``, then ``report.html``; each appears whole or not at all.

    The JSON comes first and needs no extra, so the facts are kept even where the page fails.

    Args:
        report: The run.
        folder: Where to write; made if missing. Earlier reports in it are replaced.
        page: Whether to write the page.

    Raises:
        ModuleNotFoundError: The extra ``report`` is not installed (``report.json`` is written).
    """
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "report.json", report.model_dump_json(indent=2) + "\n")
    if page:
        replace(folder / "report.html", render_html(report))


def read(folder: Path) -> RunReport:
    """Reads the ``report.json`` that :func:`write` left in ``folder``.

    Raises:
        ValueError: There is none, it is not a Sentei report, or another version wrote it.
    """
    path = folder / "report.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path}: no such file. Give the folder that a run wrote.") from None
    except ValueError as error:
        raise ValueError(f"{path}: not a Sentei report: not JSON ({error}).") from None
    if not isinstance(data, dict) or not {"sentei", "pruning"} <= data.keys():
        raise ValueError(f"{path}: not a Sentei report: no 'sentei' and 'pruning' in it.")
    try:
        return RunReport.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{path}: {where}: {first['msg']}. Sentei {data['sentei']} wrote this report: "
            "read it with that version or a newer one."
        ) from None


def render_html(report: RunReport) -> str:
    """The page as text: one file, no network, no script.

    Raises:
        ModuleNotFoundError: The extra ``report`` is not installed.
    """
    with drawing("report.html"):
        from sentei.report.html import render
    return render(report)
