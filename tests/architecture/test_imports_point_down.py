"""The levels of the house: a module imports from below, or from its own room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sentei

LEVELS = [
    {"select", "families", "record", "state"},
    {"parts", "measure", "dropout"},
    {"recipe"},
    {"engine"},
    {"pruner", "methods", "distill"},
    {"shrink"},
    {"hf", "pack", "runtime", "export", "report", "testing"},
    {"compare"},
    {"cli"},
]
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
SOURCE = Path(sentei.__file__).parent
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


def taken_from_sentei_itself(path: Path) -> set[str]:
    """What a file uses of the top module: ``b`` of ``import sentei; sentei.b``."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    used = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "sentei"
    }
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "sentei":
            rooms = {path.stem for path in SOURCE.iterdir()}
            used |= {alias.name for alias in node.names} - rooms
    return used


@pytest.mark.parametrize("path", FILES, ids=name)
def test_level(path):
    here = name(path)
    assert room(here) in LEVEL, f"give {room(here)} a level, in DESIGN.md and here"
    for module in imports(path):
        if module == "sentei":
            assert taken_from_sentei_itself(path) <= {"__version__"}
        elif module.startswith("sentei.") and room(module) != room(here):
            assert LEVEL[room(module)] < LEVEL[room(here)], f"{here} imports {module}"
        elif module.partition(".")[0] in ("transformers", "accelerate"):
            assert LEVEL[room(here)] >= LEVEL["shrink"], f"{here} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_parts_do_not_know_one_another(path):
    if room(name(path)) == "parts":
        others = {module for module in imports(path) if module.startswith("sentei.parts")}
        assert others <= {f"sentei.parts.{shared}" for shared in ("part", "learning", "site")}


def test_the_reader_of_imports_sees_all_forms(tmp_path, monkeypatch):
    """So that the tests above can fail."""
    monkeypatch.setattr(f"{__name__}.SOURCE", tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "data.py").touch()
    file = tmp_path / "parts" / "scope.py"
    file.write_text(
        "import torch.nn\nfrom sentei import hf\nfrom sentei.hf import data\n"
        "from . import masks\nfrom ..hf.data import read\nfrom .budget import Global\n"
        "def f():\n    from transformers import Trainer\n"
    )
    assert imports(file) == {
        "torch.nn",
        "sentei.hf",
        "sentei.tasks.texts",
        "sentei.parts",
        "sentei.parts.budget",
        "transformers",
    }
