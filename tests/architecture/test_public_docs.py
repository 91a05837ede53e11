"""What users can see says what it is."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import sentei
from sentei.methods import known
from sentei.parts.part import Part
from sentei.recipe import Recipe

SOURCE = Path(sentei.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
CARDS = Path(__file__).parents[2] / "docs" / "methods"
NAMED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public(path: Path):
    """Every public definition of a file that is not inside a private one, with its full name."""

    def below(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, NAMED) and not child.name.startswith("_"):
                yield prefix + child.name, child
                if isinstance(child, ast.ClassDef):
                    yield from below(child, f"{prefix}{child.name}.")

    yield from below(ast.parse(path.read_text(encoding="utf-8")), "")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_docstrings(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "the module has none"
    bare = [name for name, node in public(path) if not ast.get_docstring(node)]
    assert bare == []


def parts():
    """Every final part of Sentei, and the recipe."""
    for path in (SOURCE / "parts").glob("*.py"):
        importlib.import_module(f"sentei.parts.{path.stem}")
    found = [Part]
    for part in found:
        found += part.__subclasses__()
    ours = [part for part in found if part.__module__.startswith("sentei.")]
    return {part for part in ours if "kind" in part.model_fields} | {Recipe, *_without_axis(ours)}


def _without_axis(found):
    return [part for part in found if part is not Part and not part.axis]


@pytest.mark.parametrize(
    "part", sorted(parts(), key=lambda p: p.__name__), ids=lambda p: p.__name__
)
def test_every_setting_is_described(part):
    fields = {name: field for name, field in part.model_fields.items() if name != "kind"}
    assert [name for name, field in fields.items() if not field.description] == []


def test_parts_are_found():
    names = {part.__name__ for part in parts()}
    assert {"Recipe", "Scope", "Cubic", "Uncertainty", "Global", "Project", "Sensitivity"} <= names


@pytest.mark.parametrize("method", known(), ids=lambda method: method.name)
def test_methods_have_cards_and_sources(method):
    card = CARDS / f"{method.name}.md"
    assert card.is_file(), f"write {card}"
    module = importlib.import_module(method.build.__module__)
    assert re.search(r"arXiv \d{4}\.\d{4,5}", module.__doc__)
    assert re.search(r"arXiv \d{4}\.\d{4,5}", method.paper)
