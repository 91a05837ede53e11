"""The result of a run: its report, written last, and whether all of it is still there."""

from __future__ import annotations

from pathlib import Path

from sentei import manifest
from sentei import report as reports
from sentei.messages import listing
from sentei.records import RunReport

_OF_PEOPLE = "README.md"
"""Of a model's folder: its card, which people go on writing."""


def finish(report: RunReport, out: Path, *, page: bool = True) -> None:
    """Write a run's report, then say what its result is made of: now it has finished.

    Args:
        report: The run.
        out: Its folder, with the model.
        page: Whether to draw the page.

    Raises:
        ModuleNotFoundError: The page needs an extra that is not installed; all else is done.
        OSError: Something could not be written.
    """
    (out / manifest.MANIFEST).unlink(missing_ok=True)
    try:
        reports.write(report, out, page=page)
    finally:
        if (out / "report.json").is_file():
            seal(out)


def seal(out: Path, *, model: bool = True) -> None:
    """Say of a run's folder what its result is made of.

    Args:
        out: The folder.
        model: Whether the model is part of it, or is not to stay.

    Raises:
        OSError: It could not be written.
    """
    names = ["report.json"]
    if model:
        places = (path.relative_to(out) for path in (out / "model").rglob("*") if path.is_file())
        names += sorted(place.as_posix() for place in places if place.name != _OF_PEOPLE)
    manifest.write(out, names)


def why_unfinished(out: Path, *, sums: bool = True) -> str | None:
    """Why a run's result is not there as it was written; None where it is.

    Args:
        out: The run's folder.
        sums: Whether to read all of the model; sizes are compared in any case.
    """
    if (out / manifest.MANIFEST).is_file():
        problems = manifest.problems(out, sums=sums)
        return f"{out}: {listing(problems, 3)}" if problems else None
    try:  # of an earlier version, or the process ended just before its last line
        if sums:
            reports.read(out)
        for name in ("report.json", "model/config.json"):
            if not (out / name).stat().st_size:
                return f"{out}: {name} is empty"
    except (OSError, ValueError) as error:
        return str(error)
    return None
