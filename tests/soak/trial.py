"""A trial: something is done to Sentei, and what must not come of it is looked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .fork import MEMORY, Ended

LONGEST = 2_000
"""Characters of a message."""

RAW = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
"""What a terminal obeys rather than shows."""

BARS = re.compile(r"[^\n]*\d+%\|[^\n]*")
"""Progress bars of libraries, which go back to the start of the line."""

OBSCURE = re.compile(
    r"Aborted|Error: \[Errno|Error: '[\w-]+' codec|Error: invalid literal|Error: [\w ]{0,15}$"
    r"|Error: (maximum recursion|unsupported operand|expected str)|Error: '\w+' object"
)
"""What says neither where nor why."""

STATUS = (0, 1, 2, 129, 130, 143)


@dataclass(frozen=True)
class Trial:
    """One attempt.

    ``play`` has a folder of its own and returns faults, none where all is as it should be.
    ``kills`` is how many processes are killed in it.
    """

    group: str
    name: str
    play: Callable[[Path], list[str]]
    kills: int = 0


def faults_of(ended: Ended, *, killed: bool = False) -> list[str]:
    """What is wrong with how a command ended, whatever it was asked.

    Args:
        ended: The command.
        killed: Whether it was to be killed, or ended by a signal.
    """
    found = []
    both = f"{ended.out}\n{ended.err}"
    if ended.hung:
        found.append(f"hang: not ended after {ended.seconds:.0f} s")
    elif killed and ended.code < 0:
        pass
    elif ended.code < 0 or ended.code == 70:
        found.append(f"crash: ended with {ended.code}: {ended.err[-300:]}")
    elif "Traceback (most recent call last)" in both:
        found.append(f"traceback: {both.strip().rpartition(chr(10))[2][:300]}")
    elif ended.code not in STATUS:
        found.append(f"status: ended with {ended.code}: {ended.message[-300:]}")
    elif ended.code:
        found += _wording(ended)
    if ended.memory > MEMORY:
        found.append(f"memory: {ended.memory} MiB")
    if raw := RAW.search(both) or re.search("\r", BARS.sub("", both).replace("\r\n", "\n")):
        found.append(f"raw: {raw[0]!r} in {both[max(0, raw.start() - 40) : raw.end() + 20]!r}")
    if not killed and not ended.hung and "--json" in ended.words and not _is_json(ended.out):
        found.append(f"no JSON: {ended.out[:200]!r}")
    found += ended.notes
    return [one[:600] for one in found]


def _wording(ended: Ended) -> list[str]:
    """An error must be said: shortly, with its cause."""
    said = f"{ended.err}\n{ended.out}" if "--json" in ended.words else ended.err
    if ended.words[:1] == ("verify",) and ended.code == 1 and "FAILS" in ended.out:
        return []
    if not said.strip():
        return [f"silent: ended with {ended.code} and no word"]
    if len(said) > LONGEST:
        return [f"long: {len(said)} characters: {said[:100]!r}"]
    if OBSCURE.search(said):
        return [f"obscure: {ended.message[-300:]}"]
    return []


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def refused_with(ended: Ended, names: Sequence[str]) -> list[str]:
    """Of a refusal: it must name one of these."""
    if ended.refused and not any(name in ended.err + ended.out for name in names):
        return [f"cause not named ({', '.join(names)}): {ended.message[-300:]}"]
    return []
