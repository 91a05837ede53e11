"""Reports: records as JSON for machines, one self-contained page, a summary on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from sentei.files import write_text
from sentei.messages import explain, printable
from sentei.records import Comparison, Record, RunReport, SpeedReport
from sentei.report.compare_console import print_comparison
from sentei.report.console import print_console
from sentei.report.speed import in_short, markdown
from sentei.report.speed_console import print_speed
from sentei.untrusted import read_json, reading

__all__ = [
    "in_short",
    "print_comparison",
    "print_console",
    "print_speed",
    "read",
    "read_speed",
    "render_comparison",
    "render_html",
    "write",
    "write_comparison",
    "write_page",
    "write_speed",
]

SPEED = "bench.json"
"""Beside a run's report, where its model was timed."""


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
    write_text(folder / "report.json", _json(report))
    if page:
        write_page(report, folder)


def write_page(report: RunReport, folder: Path) -> None:
    """Writes ``report.html`` of a run whose ``report.json`` is there.

    Raises:
        ModuleNotFoundError: The extra ``report`` is not installed.
    """
    write_text(folder / "report.html", render_html(report, read_speed(folder)))


def _json(record: Record) -> str:
    """As pydantic writes it, but also with names of files that are no Unicode."""
    return json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def read(folder: Path) -> RunReport:
    """Reads the ``report.json`` that :func:`write` left in ``folder``.

    Raises:
        ValueError: There is none, it is not a Sentei report, or another version wrote it.
    """
    path = folder / "report.json"
    if not path.exists():
        raise ValueError(f"{path}: no such file. Give the folder that a run wrote.")
    data = read_json(path)
    if not isinstance(data, dict) or not {"sentei", "pruning"} <= data.keys():
        raise ValueError(f"{path}: not a Sentei report: no 'sentei' and 'pruning' in it.")
    try:
        return RunReport.model_validate(data)
    except ValidationError as error:
        first = explain(error).partition("; ")[0]
        raise ValueError(
            f"{path}: {first}. Sentei {printable(str(data['sentei'])[:20])} wrote this report: "
            "read it with that version or a newer one."
        ) from None


def render_html(report: RunReport, speed: SpeedReport | None = None) -> str:
    """The page of a run as text: one file, no network, no script.

    Args:
        report: The run.
        speed: How fast its model is, where that was measured.

    Raises:
        ModuleNotFoundError: The extra ``report`` is not installed.
    """
    with _drawing("report.html"):
        from sentei.report.html import render
    return render(report, speed)


def write_speed(speed: SpeedReport, folder: Path) -> None:
    """Writes ``bench.json`` and ``bench.md``, then ``bench.svg``, and a run's page anew.

    Raises:
        ModuleNotFoundError: The extra ``report`` is not installed (the first two are written).
        ValueError: There is a ``report.json`` that is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SPEED, _json(speed))
    write_text(folder / "bench.md", markdown(speed))
    with _drawing("bench.svg"):
        from sentei.report.speed_chart import picture
    write_text(folder / "bench.svg", picture(speed))
    if (folder / "report.json").is_file():
        write_page(read(folder), folder)


def read_speed(folder: Path) -> SpeedReport | None:
    """Reads the ``bench.json`` of a folder; None where there is none.

    Raises:
        ValueError: It is not one, or another version wrote it.
    """
    path = folder / SPEED
    if not path.is_file():
        return None
    with reading(path, f"measure again with: sentei bench {folder}"):
        return SpeedReport.model_validate(read_json(path))


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Writes ``compare.json``, then ``compare.html``; each appears whole or not at all.

    Raises:
        ModuleNotFoundError: The extra ``report`` is not installed (``compare.json`` is written).
    """
    write_text(folder / "compare.json", _json(comparison))
    write_text(folder / "compare.html", render_comparison(comparison))


def render_comparison(comparison: Comparison) -> str:
    """The page of a comparison as text: one file, no network, no script.

    Raises:
        ModuleNotFoundError: The extra ``report`` is not installed.
    """
    with _drawing("compare.html"):
        from sentei.report.compare_page import render
    return render(comparison)


@contextmanager
def _drawing(page: str) -> Iterator[None]:
    """Around the import of what draws a page.

    Raises:
        ModuleNotFoundError: The extra ``report`` is not installed; says so.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("jinja2", "matplotlib"):
            raise
        raise ModuleNotFoundError(
            f"{page} needs {error.name}: pip install 'sentei[report]'", name=error.name
        ) from error
