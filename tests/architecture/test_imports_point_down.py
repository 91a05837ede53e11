"""The levels of the house: a module imports from below, or from its own room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sentei

LEVELS = [
    {"messages", "sharded"},
    {"distributed"},
    {
        "_version",
        "lazy",
        "files",
        "tensors",
        "modules",
        "records",
    },
    {"untrusted", "locks"},
    {"manifest"},
    {"families"},
    {"parts"},
    {"recipe"},
    {"methods"},
    {"serialization"},
    {"pruning", "distill", "report"},
    {"testing"},
    {"models", "integrations"},
    {"pack", "export"},
    {"shrink", "data", "runtime"},
    {"tasks"},
    {"run"},
    {"compare"},
    {"cli"},
]
TRANSFORMERS = "models"
"""The lowest room that knows transformers."""

LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
SOURCE = Path(sentei.__file__).parent
LONG = {"sentei.families.catalogue", "sentei.parts.patterns", "sentei.parts.scope"}
"""A catalogue, and two ideas that are long."""
FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def room(module: str) -> str:
    """``sentei.parts.scope`` is in the room ``parts``."""
    return module.split(".")[1]


def name(path: Path) -> str:
    parts = ("sentei", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside functions; submodules in full."""
    package = name(path) if path.name == "__init__.py" else name(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base]).rstrip(".")
            for alias in node.names:
                below = SOURCE.joinpath(*base.split(".")[1:], alias.name)
                submodule = below.is_dir() or below.with_suffix(".py").is_file()
                ours = base.split(".")[0] == "sentei"
                found.add(f"{base}.{alias.name}" if ours and submodule else base)
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_level(path):
    here = name(path)
    assert room(here) in LEVEL, f"give {room(here)} a level here"
    for module in imports(path):
        if module == "sentei" or (module.startswith("sentei.") and module.count(".") < 1):
            raise AssertionError(f"{here} imports sentei itself, which imports all below")
        if module.startswith("sentei.") and room(module) != room(here):
            assert LEVEL[room(module)] < LEVEL[room(here)], f"{here} imports {module}"
        elif module.partition(".")[0] in ("transformers", "accelerate"):
            assert LEVEL[room(here)] >= LEVEL[TRANSFORMERS], f"{here} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_report_knows_records_alone(path):
    if room(name(path)) == "report":
        ours = {room(module) for module in imports(path) if module.startswith("sentei.")}
        assert ours <= {"report", "records", "messages", "files", "untrusted"}


def test_no_circles():
    """Inside a room too: no file imports, at its top or later, what imports it."""
    graph = {name(path): {m for m in imports(path) if m.startswith("sentei.")} for path in FILES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " imports ".join([*above[above.index(module) :], module])
        if module in done or module not in graph:
            return
        for below in sorted(graph[module]):
            if not module.startswith(f"{below}."):  # a package's own __init__ holds no code
                visit(below, (*above, module))
        done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=name)
def test_sizes(path):
    """No file above 400 lines but those that earn it, no function above 60."""
    source = path.read_text(encoding="utf-8")
    lines = len(source.splitlines())
    assert lines <= 400 or name(path) in LONG, f"{name(path)} has {lines} lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            span = (node.end_lineno or 0) - node.lineno + 1
            assert span <= 60, f"{name(path)}.{node.name} has {span} lines"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_parts_do_not_know_one_another(path):
    if room(name(path)) == "parts" and path.stem != "__init__":
        others = {module for module in imports(path) if module.startswith("sentei.parts")}
        assert others <= {
            f"sentei.parts.{shared}"
            for shared in ("part", "learning", "site", "progress", "inputs")
        }


def test_the_reader_of_imports_sees_all_forms(tmp_path, monkeypatch):
    """So that the tests above can fail."""
    monkeypatch.setattr(f"{__name__}.SOURCE", tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "texts.py").touch()
    file = tmp_path / "parts" / "scope.py"
    file.write_text(
        "import torch.nn\nfrom sentei import run\nfrom sentei.run import texts\n"
        "from . import masks\nfrom ..run.texts import read\nfrom .budget import Global\n"
        "def f():\n    from transformers import Trainer\n"
    )
    assert imports(file) == {
        "torch.nn",
        "sentei.run",
        "sentei.run.texts",
        "sentei.parts",
        "sentei.parts.budget",
        "transformers",
    }
