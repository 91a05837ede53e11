"""What benchmarks measured, run by run: one line of JSON each in results/NAME.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks import machine

Line = dict[str, Any]


class Log:
    """Runs as they finish, appended; those already there need not run again.

    Args:
        name: Of the file in results.
        keys: What tells one run from another.
    """

    def __init__(self, name: str, keys: tuple[str, ...] = ("run",)) -> None:
        self.keys = keys
        self.file = machine.RESULTS / f"{name}.jsonl"

    @property
    def lines(self) -> list[Line]:
        """All that are there now: another process may add to the file."""
        text = self.file.read_text(encoding="utf-8") if self.file.is_file() else ""
        return [json.loads(line) for line in text.splitlines()]

    def find(self, key: Mapping[str, object]) -> Line | None:
        """The line of a run, if it has one."""
        same = (line for line in self.lines if all(line[name] == key[name] for name in self.keys))
        return next(same, None)

    def add(self, line: Line) -> None:
        """Write a run down, with what it ran on."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "machine": machine.facts()}) + "\n")
