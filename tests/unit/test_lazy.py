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


WAIT = """
import sys
from sentei.lazy import after_import
sys.path.insert(0, sys.argv[1])
seen = []
finders = list(sys.meta_path)
after_import("garden.pond", lambda: seen.append(sys.modules["garden.pond"].DEPTH))
after_import("desert", lambda: seen.append("desert"))
import garden.trees
assert not seen and "garden.pond" not in sys.modules
import garden.pond
assert seen == [3]
import inspect, importlib
assert "DEPTH = 3" in inspect.getsource(garden.pond)
importlib.reload(garden.pond)
after_import("garden.pond", lambda: seen.append("at once"))
assert seen[-1] == "at once" and "desert" not in seen
try:
    import desert
except ModuleNotFoundError:
    pass
assert sys.meta_path == finders and "desert" not in seen
"""


def test_what_waits_for_a_module_of_others(tmp_path):
    folder = tmp_path / "garden"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "pond.py").write_text("DEPTH = 3\n")
    (folder / "trees.py").touch()
    run(WAIT, tmp_path)


RAISE = """
import sys
from sentei.lazy import after_import
after_import("json.tool", lambda: 1 / 0)
try:
    import json.tool
except ZeroDivisionError:
    assert "json.tool" not in sys.modules
else:
    raise AssertionError
"""


def test_what_is_called_may_fail():
    run(RAISE)
