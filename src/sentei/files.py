"""Whole or not at all: files and folders that are there complete, or as they were before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write a file or a folder to, which then takes its place.

    If the block fails, what was at ``path`` is untouched and nothing is left beside it. An empty
    folder stays itself, and is filled: someone may be in it.

    Raises:
        OSError: It could not be moved there.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    _remove(unfinished)
    try:
        yield unfinished
        if path.is_dir() and unfinished.is_dir() and not any(path.iterdir()):
            for entry in unfinished.iterdir():
                shutil.move(entry, path / entry.name)
        else:
            if path.is_dir():
                shutil.rmtree(path)
            os.replace(unfinished, path)
    finally:
        _remove(unfinished)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises:
        OSError: It could not be written; what was there is as it was.
    """
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
