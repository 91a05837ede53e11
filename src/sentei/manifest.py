"""What a folder holds, with sizes and checksums: whether it is complete can be said later.

A checkpoint is many files, written one after another by several hands. Its manifest is written
last, when all of them are on the disk: a folder without one was cut short, and one whose files are
not those of its manifest was harmed since.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from sentei.files import sync, write_text
from sentei.messages import short
from sentei.untrusted import read_json

MANIFEST: Final = "manifest.json"
"""Name of the file, in the folder it tells of."""


def write(folder: Path, names: Iterable[str] | None = None) -> None:
    """Write a folder's manifest, once all that it holds is on the disk.

    Where several processes write to the folder, all must have done so: wait for them before.

    Args:
        folder: The folder.
        names: The files, and folders with all that is in them, that it is to tell of; None tells
            of all.

    Raises:
        OSError: A file cannot be read, or the disk is full.
    """
    places = [folder / name for name in names] if names is not None else [folder]
    (folder / MANIFEST).unlink(missing_ok=True)
    for place in places:
        sync(place)
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sum(path)}
        for place in places
        for path in _files(place)
        if path.name != MANIFEST
    }
    write_text(folder / MANIFEST, json.dumps({"files": files}, indent=1) + "\n")


def problems(folder: Path, *, sums: bool = True) -> list[str]:
    """Why a folder is not what its manifest says, a sentence for each file; empty if it is.

    Args:
        folder: The folder.
        sums: Whether to read every file and compare its checksum; sizes are compared in any case.
    """
    try:
        files = read_json(folder / MANIFEST)["files"]
        return [said for name in files if (said := _problem(folder, name, files[name], sums))]
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
        if not (folder / MANIFEST).exists():
            return [f"it has no {MANIFEST}, so its writing was cut short"]
        return [f"{MANIFEST} is damaged"]


def _problem(folder: Path, name: str, told: dict[str, Any], sums: bool) -> str | None:
    path = folder / name
    try:
        size = path.stat().st_size
        if not path.is_file():
            return f"{short(name)} is no plain file"
        if size != told["bytes"]:
            return f"{short(name)} has {size:,} bytes of {int(told['bytes']):,}"
        if sums and _sum(path) != told["sha256"]:
            return f"{short(name)} is not as it was written (its checksum differs)"
    except FileNotFoundError:
        return f"{short(name)} is missing"
    except OSError as error:
        return f"{short(name)} cannot be read ({error.strerror})"
    return None


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    folders = os.walk(place)
    return sorted(Path(at, name) for at, _, names in folders for name in names)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
