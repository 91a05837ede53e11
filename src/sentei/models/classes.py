"""What a model calls its classes."""

from __future__ import annotations

from collections.abc import Sequence


def same_names(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists name the same classes, whatever their order and capitals."""
    return {name.casefold() for name in one} == {name.casefold() for name in other}


def placeholders(count: int) -> tuple[str, ...]:
    """What transformers calls classes that nobody named."""
    return tuple(f"LABEL_{i}" for i in range(count))
