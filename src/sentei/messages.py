"""Sentences for people: what was probably meant, lists, counts, a failed check in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError


class SenteiWarning(UserWarning):
    """Something was asked for that will not happen as asked."""


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word that is most like ``word``, whatever its capitals; None if none is near."""
    plain = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), plain, n=1, cutoff=cutoff)
    return plain[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or nothing where no known word is near."""
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""


def listing(items: Iterable[str], most: int = 10) -> str:
    """The first of many, and how many more there are."""
    shown = list(items)
    more = f", ... ({len(shown) - most} more)" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def short(value: object, width: int = 40) -> str:
    """A value as Python writes it, cut to ``width``."""
    shown = repr(value)
    return shown if len(shown) <= width else f"{shown[: width - 4]}...{shown[0]}"


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


Known = Callable[[tuple[int | str, ...]], Iterable[str]]
"""The settings that an unknown one, given by its path, may have been meant for."""


def explain(error: ValidationError, known: Known = lambda path: ()) -> str:
    """What is wrong with a declaration, in one line: path, value, reason of each mistake.

    Args:
        error: pydantic's.
        known: The settings that an unknown one may have been meant for.
    """
    return "; ".join(_mistake(dict(detail), known) for detail in error.errors(include_url=False))


def _mistake(detail: Mapping[str, Any], known: Known) -> str:
    path = ".".join(str(step) for step in detail["loc"])
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] == "extra_forbidden":
        hint = did_you_mean(str(detail["loc"][-1]), known(detail["loc"]))
        return f"unknown setting {path}{hint}"
    reason = re.sub(r"^(Value error|Input), ?", "", detail["msg"])
    reason = re.sub(r"^Input ", "", reason)
    if not path:
        return reason
    value = detail["input"]
    shown = "" if isinstance(value, Mapping | BaseModel) else f"={value!r}"
    return f"{path}{shown}: {reason}"
