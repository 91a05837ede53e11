"""Sentences for people: what was probably meant, lists, counts, a failed check in one line."""

from __future__ import annotations

import difflib
import re
import reprlib
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
    """A value as Python writes it, cut to ``width``; of a large one no more is written out."""
    shown = printable(_Short(width).repr(value))
    return shown if len(shown) <= width else f"{shown[: width - 4]}...{shown[0]}"


class _Short(reprlib.Repr):
    """What fits, of any value: its size does not matter, nor what its own ``__repr__`` does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 20
        self._width = width

    def repr_str(self, value: str, level: int) -> str:
        return repr(value[: self._width])

    def repr_int(self, value: int, level: int) -> str:
        bits = value.bit_length()
        return repr(value) if bits < 4 * self._width else f"a number of {bits} bits"

    def repr_instance(self, value: Any, level: int) -> str:
        return repr(value)[: 2 * self._width]


def printable(text: str) -> str:
    """A text that changes nothing but the place where it is printed.

    Control characters, escape codes, marks that turn the direction of writing and halves of
    surrogates are shown as Python writes them; line ends and tabs stay.
    """
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def cut(text: str, width: int) -> str:
    """A text of others inside a sentence: printable, and not longer than ``width``."""
    shown = printable(text[: width + 1])
    return shown if len(shown) <= width else f"{shown[: width - 3]}..."


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
    mistakes = error.errors(include_url=False)
    shown = [_mistake(dict(detail), known) for detail in mistakes[:_MOST_MISTAKES]]
    more = len(mistakes) - len(shown)
    return "; ".join([*shown, f"and {counted(more, 'more mistake')}"] if more else shown)


_MOST_MISTAKES = 8
_IN_YAML = dict.fromkeys(("tuple_type", "list_type"), "should be a list, in brackets")
"""Reasons in the words of YAML, where pydantic's are Python's."""


def _mistake(detail: Mapping[str, Any], known: Known) -> str:
    path = ".".join(cut(str(step), 60) for step in detail["loc"])
    if detail["type"] == "missing":
        return f"{path} is missing"
    if detail["type"] == "extra_forbidden":
        hint = did_you_mean(str(detail["loc"][-1])[:60], known(detail["loc"]))
        return f"unknown setting {path}{hint}"
    reason = re.sub(r"^(Value error|Input), ?", "", detail["msg"])
    reason = re.sub(r"^(Input|Tuple|List) | after validation", "", reason)
    reason = cut(_IN_YAML.get(detail["type"], reason), 600)
    if not path:
        return reason
    value = detail["input"]
    shown = "" if isinstance(value, Mapping | BaseModel) else f"={short(value, 80)}"
    return f"{path}{shown}: {reason}"
