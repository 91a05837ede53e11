"""What users can see says what it is."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import re
import textwrap
from pathlib import Path

import pytest

import sentei
from sentei.methods import known
from sentei.parts.part import Part
from sentei.recipe import Recipe

SOURCE = Path(sentei.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
DOCS = Path(__file__).parents[2] / "docs"
CARDS = DOCS / "methods"
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
    for room in ("parts", "methods", "tasks", "run"):
        for path in (SOURCE / room).glob("*.py"):
            importlib.import_module(f"sentei.{room}.{path.stem}")
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


# ----------------------------------------------------------------------------------- the reference


def referenced():
    """What the pages of the reference show: objects by the name under which they stand there."""
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    names = re.findall(r"^::: (\S+)$", text, re.M)
    return {name: pkgutil.resolve_name(name) for name in names}


def test_every_public_name_is_in_the_reference():
    shown = list(referenced().values())
    public = {name: getattr(sentei, name) for name in sentei.__all__}
    for room in (sentei.shrink, sentei.runtime, sentei.pack, sentei.export):
        public |= {f"{room.__name__}.{name}": getattr(room, name) for name in room.__all__}
    missing = [name for name, value in public.items() if not any(value is one for one in shown)]
    # a string, and modules: of parts, which have a test of their own, and of the names above
    assert missing == ["__version__", "export", "pack", "parts", "runtime", "shrink"]


def test_every_part_is_in_the_reference():
    shown = list(referenced().values())
    missing = [part.__name__ for part in parts() if part not in shown]
    assert missing == []


def test_every_field_and_capability_of_a_part_is_described_where_it_stands():
    """The reference reads them from the source: a string after each."""
    for name, part in referenced().items():
        if isinstance(part, type) and issubclass(part, Part):
            source = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0].body
            for field, after in itertools.pairwise([*source, ast.Pass()]):
                if isinstance(field, ast.AnnAssign) and _is_new(field, part):
                    assert isinstance(after, ast.Expr), f"{name}.{field.target.id}"


def _is_new(field, part):
    """Whether no base has a field of this name, whose words would do."""
    known = ("kind", *(name for base in part.__bases__ for name in dir(base)))
    inherited = {name for base in part.__mro__[1:] for name in getattr(base, "model_fields", ())}
    return field.target.id not in known and field.target.id not in inherited


def test_contributing_names_every_room():
    text = (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = {path.stem for path in SOURCE.iterdir() if not path.name.startswith(("_", "py."))}
    assert {room for room in rooms if f"`{room}`" not in text} == set()
