"""Names that are imported when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sentei.lazy import lazily

PACKAGE = """
from sentei.lazy import lazily

__getattr__ = lazily(__name__, {"deep": "garden.deep", "Tree": "garden.trees"})
"""

USE = """
import sys
sys.path.insert(0, sys.argv[1])
import garden
assert "garden.deep" not in sys.modules and "garden.trees" not in sys.modules
assert garden.Tree.__module__ == "garden.trees"
assert "garden.deep" not in sys.modules
assert garden.deep.DEPTH == 3
from garden import Tree, deep
"""


def run(code: str, *arguments: object) -> None:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_is_imported_before_it_is_used(tmp_path):
    folder = tmp_path / "garden"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE)
    (folder / "deep.py").write_text("DEPTH = 3\n")
    (folder / "trees.py").write_text("class Tree:\n    pass\n")
    run(USE, tmp_path)


def test_a_name_that_is_not_there():
    get = lazily("garden", {"Tree": "garden.trees"})
    with pytest.raises(AttributeError, match=r"^module 'garden' has no attribute 'Tre'$"):
        get("Tre")
