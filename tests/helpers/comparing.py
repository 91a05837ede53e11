"""Comparisons of tiny models, and what they say."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from sentei import cli
from sentei.untrusted import to_yaml

FAST = {"epochs": 3, "learning_rate": 1e-2, "precision": "fp32", "evaluations": 1, "checkpoints": 2}
LONG = {"epochs": 40, "checkpoints": 20}
ENTRY = {"method": "magnitude", "set": ["schedule.every=2"]}


def small_plan(model: Path, data: dict[str, Path], **changes) -> dict:
    """One task, the recipe ``magnitude``, one sparsity, one seed; with changes."""
    files = {name: str(data[name]) for name in ("train", "eval")}
    settings = {"model": str(model), **files, **FAST, **changes.pop("settings", {})}
    plan = {"tasks": {"words": {}}, "recipes": {"magnitude": ENTRY}, "sparsities": [0.8]}
    return {"settings": settings, **plan, "seeds": [1], **changes}


def write(plan: dict, folder: Path) -> Path:
    """A plan as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "asked.yaml"
    file.write_text(to_yaml(plan))
    return file


def compare(*arguments: object):
    """The command, in this process."""
    return CliRunner().invoke(cli.app, ["compare", *map(str, arguments)])


def begun(told: str) -> list[str]:
    """The runs that a worker said it began."""
    return re.findall(r"\] ((?:runs|search)/\S+) \(", told)


def checkpoints(out: Path) -> set[Path]:
    """Of dense runs, the complete ones."""
    return set(out.glob("runs/*/dense/*/checkpoints/*/trainer_state.json"))


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 300
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()
