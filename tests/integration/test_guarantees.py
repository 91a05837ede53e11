"""Every promise on the page of guarantees names tests that hold it, and these exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def promises() -> list[tuple[str, str]]:
    """Each promise, and the cell with what holds it."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    return [(promise, tests) for promise, tests in rows if NAMED.search(tests)]


@cache
def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("promise, tests", promises(), ids=lambda text: text[:40])
def test_what_holds_a_promise_exists(promise, tests):
    for file, name in NAMED.findall(tests):
        path = ROOT / "tests" / file
        assert path.is_file(), f"{promise}: there is no tests/{file}"
        assert name in functions(path), f"{promise}: tests/{file} has no {name}"


def test_every_promise_names_what_holds_it():
    text = PAGE.read_text(encoding="utf-8").partition("## What was tried")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    stated = [line for line in rows if line != "| promise | held by |"]
    assert len(stated) == len(promises()) > 15
