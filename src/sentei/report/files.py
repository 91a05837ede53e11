"""Writing whole files, and saying which extra a page needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Writes beside ``path`` first, so that a failure leaves the old file as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def drawing(name: str) -> Iterator[None]:
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
            f"{name} needs {error.name}: pip install 'sentei[report]'", name=error.name
        ) from error
