"""What a benchmark ran on, and how its result is written down."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy
import torch

import sentei
from sentei.runtime.bench.machine import cpu

RESULTS = Path(__file__).parent / "results"


def facts() -> dict[str, str]:
    """Machine, versions, commit and command."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": cpu(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "sentei": sentei.__version__,
        "commit": _commit(),
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *_arguments()]),
    }


def versions(*packages: str) -> dict[str, str]:
    """Of installed packages."""
    return {name: metadata.version(name) for name in packages}


def write(name: str, table: str, data: dict[str, Any], by: dict[str, str] | None = None) -> None:
    """Write ``results/NAME.md`` and ``results/NAME.json``, and print the table.

    ``by`` are the facts of the run that measured it, if that is not this one.
    """
    about = by or facts()
    RESULTS.mkdir(exist_ok=True)
    lines = [f"# {name}", "", table, "", *(f"- {key}: {value}" for key, value in about.items())]
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    record = json.dumps({"machine": about, **data}, indent=2)
    (RESULTS / f"{name}.json").write_text(record + "\n", encoding="utf-8")
    print(table)


def _arguments() -> list[str]:
    """Of the command; of absolute paths, which say nothing elsewhere, the last part alone."""
    return [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]


def _commit() -> str:
    """The commit, ``-dirty`` where the code (not the results) differs from it."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, cwd=RESULTS.parent, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "../src", "*.py")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("-dirty" if changed else "")
