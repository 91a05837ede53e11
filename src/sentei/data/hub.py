"""Datasets of the Hugging Face hub, or of its cache on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sentei.data.formats import KNOWN, suffix
from sentei.untrusted import reason

_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?::([\w.-]+))?")


def parse(source: str | Path) -> tuple[str, str | None] | None:
    """Path and configuration out of ``user/name`` or ``user/name:config``.

    None of anything else, and of what lies on this machine or is called like a file of data.
    """
    path = Path(source)
    match = _NAME.fullmatch(path.as_posix())
    local = os.path.exists(path) or suffix(path) in KNOWN
    return (match[1], match[2]) if match and not local else None


def load(
    path: str, config: str | None, splits: Sequence[str], revision: str | None = None
) -> list[tuple[Any, str]]:
    """Splits of a dataset, each with its name in words.

    Args:
        path: ``user/name``.
        config: One of its configurations; None where it has one alone.
        splits: Names of splits.
        revision: A branch, tag or commit; by default what is newest.

    Raises:
        ValueError: The hub cannot be reached, or the dataset cannot be loaded.
    """
    parts = load_all(path, config, revision)
    return [(parts[split], f"{spelled(path, config)}, {split} split") for split in splits]


def load_all(path: str, config: str | None, revision: str | None = None) -> Any:
    """A ``datasets.DatasetDict`` of all splits; arguments and errors as of :func:`load`."""
    import datasets  # takes most of a second, and names are parsed without it

    where = {"revision": revision} if revision else {}
    try:
        return datasets.load_dataset(path, config, **where)
    except Exception as error:  # of huggingface_hub, the network, datasets and what it reads with
        reached = not isinstance(error, ConnectionError)
        what = "could not be loaded" if reached else "the Hugging Face hub cannot be reached"
        raise ValueError(
            f"the dataset {spelled(path, config)} of the hub is needed and {what} "
            f"({type(error).__name__}: {reason(error)}). With the same data in files or in a "
            f"folder made by save_to_disk: --train FILE --eval FILE."
        ) from error


def spelled(path: str, config: str | None) -> str:
    """A dataset and its configuration in words."""
    return f"{path} ({config})" if config else path
