"""Cells of a comparison: each trains a model and is one line of JSON in results/NAME.jsonl."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import machine
from sentei import serialization
from sentei.recipe import Recipe
from sentei.records import RunReport
from sentei.run.options import settings_from
from sentei.run.prepare import prepare
from sentei.run.run import prune


class Log:
    """Cells as they finish, appended; those already there need not run again.

    Args:
        name: Of the file in results.
        names: What tells one cell from another.
    """

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        self.names = names
        self.file = machine.RESULTS / f"{name}.jsonl"

    @property
    def cells(self) -> list[dict[str, Any]]:
        """All that are there now: another process may add to the file."""
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else []
        return [json.loads(line) for line in lines]

    def find(self, key: Mapping[str, object]) -> dict[str, Any] | None:
        """The cell of this key, if it has run."""
        same = (c for c in self.cells if all(c[name] == key[name] for name in self.names))
        return next(same, None)

    def add(self, cell: dict[str, Any]) -> None:
        """Write a cell down, with what it ran on."""
        cell = {**cell, "machine": machine.facts()}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(cell) + "\n")


def train(given: Mapping[str, Any], recipe: Recipe, out: Path) -> RunReport:
    """Train and prune into an empty folder; keep the run without its checkpoints."""
    shutil.rmtree(out, ignore_errors=True)
    options = {**given, "evaluations": 1, "checkpoints": 1}
    prepared = prepare(settings_from(options, serialization.to_dict(recipe)))
    report = prune(replace(prepared, trained_head=False), out)  # the start has a cell of its own
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return report
