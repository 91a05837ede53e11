"""Input that no file and no option should have, and the trial of a command that is given some."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .fork import run
from .trial import Trial, faults_of

READER = 30
"""Seconds in which whatever is read must be read or refused."""

INSPECT = ("inspect", "--epochs", "40")
"""Of a run so long that the usual values of every method fit it."""

TEXTS = {
    "empty": "",
    "a blank": " ",
    "markup": "[/x]",
    "open markup": "[red]a[bold",
    "a link": "[link=http://x.test]y[/link]",
    "an emoji's name": ":smile:",
    "escape": "\x1b[31mred\x1b]0;title\x07",
    "bell": "\x07",
    "C1": "\x9b2J",
    "bidi": "a\u202eb",
    "isolate": "\u2066a",
    "new line": "a\nb",
    "return": "a\rb",
    "tab": "a\tb",
    "percent": "%s %n %d",
    "braces": "{0} {x!r} ${HOME}",
    "HTML": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "quotes": "'\"`$(touch canary)`",
    "separator": "a\u2028b\u0085c",
    "combining": "e" + "\u0301" * 200,
    "half a surrogate": "\udc80",
    "long": "x" * 60_000,
    "up": "../../../etc/passwd",
    "home": "~/x",
    "NaN": "nan",
    "infinite": "-inf",
    "overflow": "1e999",
    "huge": "9" * 5_000,
    "negative": "-1",
    "zero": "0",
    "half": "0.5",
    "true": "true",
    "null": "null",
    "a list": "[1, 2]",
    "a mapping": "{a: 1}",
    "a tag": "!!python/object/apply:os.system ['touch canary']",
    "a bomb": "[&a [x,x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a,*a], [*b,*b,*b,*b,*b,*b,*b,*b]]",
    "deep": "[" * 2_000,
    "unbalanced": "{[(",
}

VALUES: dict[str, Any] = {
    "nothing": None,
    "yes": True,
    "minus": -1,
    "zero": 0,
    "a half": 0.5,
    "big": 10**12,
    "huge": 10**400,
    "tiny": 5e-324,
    "large": 1e308,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "text": "x",
    "no text": "",
    "markup": "[/x]\x1b[31m",
    "surrogate": "\udc80",
    "long": "y" * 100_000,
    "list": [],
    "lists": [[[[1]]], "a", None],
    "mapping": {},
    "mappings": {"a": {"b": {"": None}}},
}


def deep_json(depth: int = 100_000) -> bytes:
    return b"[" * depth + b"]" * depth


def bomb(levels: int = 9, at: str = "method") -> str:
    """YAML that stands for ten times as much at every level."""
    lines = ["a: &a [" + ",".join("x" * 10) + "]"]
    names = "abcdefghijklmnop"
    for old, new in itertools.pairwise(names[:levels]):
        lines.append(f"{new}: &{new} [" + ",".join([f"*{old}"] * 10) + "]")
    return "\n".join([*lines, f"{at}: *{names[levels - 1]}", ""])


FILES: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n\n\t\n",
    "NUL": b"\0" * 64,
    "binary": bytes(random.Random(0).randrange(256) for _ in range(4096)),
    "UTF-16": "text,label\na,b\n".encode("utf-16"),
    "not UTF-8": b"text,label\n\xff\xfe\xfa,b\n",
    "BOM alone": b"\xef\xbb\xbf",
    "one brace": b"{",
    "one bracket": b"[",
    "null": b"null",
    "number": b"3",
    "text": b'"x"',
    "list": b"[]",
    "object": b"{}",
    "deep": deep_json(),
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "huge number": b"1" * 200_000,
    "escape": b"\x1b[2J\x1b]0;x\x07",
    "one long line": b"a" * 2_000_000,
    "many lines": b"x\n" * 300_000,
    "YAML bomb": bomb().encode(),
    "YAML tag": b"!!python/object/apply:os.system ['touch canary']",
    "pickle": pickle.dumps({"a": 1}),
    "zip": b"PK\x03\x04" + b"\0" * 60,
    "gzip": b"\x1f\x8b\x08" + b"\0" * 60,
}


class _Canary:
    """A pickle that writes a file as it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, ("touch canary",)


CANARY = pickle.dumps(_Canary())

SPECIAL: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a FIFO": lambda path: os.mkfifo(path),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to(path.parent / "nothing"),
    "zeros without end": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "a file of the kernel": lambda path: path.symlink_to("/proc/self/mem"),
}

Content = bytes | Callable[[Path], None]


def attempt(
    group: str,
    name: str,
    words: Sequence[object],
    files: Mapping[str, Content] | None = None,
    *,
    before: Callable[[Path], None] = lambda place: None,
    after: Callable[[Path], list[str]] = lambda place: [],
    allowed: Sequence[str] = ("out",),
    seconds: float = READER,
) -> Trial:
    """A trial of one command, which must end in a result or in a sentence.

    Args:
        group: Of trials.
        name: What is bad.
        words: The command; ``HERE`` stands for the trial's folder.
        files: What is written there before.
        before: What else is done before.
        after: What else must hold; gives faults.
        allowed: What may be written to.
        seconds: Until it must have ended.
    """

    def play(place: Path) -> list[str]:
        before(place)
        for path, content in (files or {}).items():
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content) if isinstance(content, bytes) else content(target)
        typed = [str(word).replace("HERE", str(place)) for word in words]
        given = [place / str(path).replace("HERE", str(place)) for path in allowed]
        ended = run(typed, place, given, seconds=seconds)
        found = faults_of(ended)
        if any(place.rglob("canary")):
            found.append("executed: the canary's file is there")
        return found + after(place)

    return Trial(group, name, play)


def mutants(text: str, count: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Changed copies of a text: lines lost, twice, exchanged, cut; values and characters others."""
    odd = [*TEXTS.values(), *(json.dumps(v, skipkeys=True) for v in list(VALUES.values())[:8])]
    lines = text.splitlines()
    for number in range(count):
        kind = ("lost", "twice", "exchanged", "value", "cut", "bytes", "indent")[number % 7]
        changed = list(lines)
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        if kind == "lost":
            del changed[at]
        elif kind == "twice":
            changed.insert(other, changed[at])
        elif kind == "exchanged":
            changed[at], changed[other] = changed[other], changed[at]
        elif kind == "value":
            key = changed[at].partition(":")[0]
            changed[at] = f"{key}: {rng.choice(odd)}"
        elif kind == "indent":
            changed[at] = " " * rng.randrange(1, 5) + changed[at]
        data = "\n".join(changed).encode("utf-8", "surrogatepass")
        if kind == "cut":
            data = data[: rng.randrange(len(data))]
        elif kind == "bytes":
            spoilt = bytearray(data)
            for _ in range(rng.randrange(1, 8)):
                spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
            data = bytes(spoilt)
        yield f"mutant {number}: {kind}", data
