"""``import sentei`` gives every public name when it is asked for, and imports nothing before."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import sentei


@pytest.mark.parametrize("name", sentei.__all__)
def test_every_public_name_is_there(name):
    value = getattr(sentei, name)
    assert value is not None and name in dir(sentei)
    if name in sentei._FROM:
        module = importlib.import_module(sentei._FROM[name])
        assert value is module or value is getattr(module, name)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(sentei.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module if node.module != "sentei" else f"sentei.{alias.name}"
        for node in block.body
        for alias in node.names
    }
    assert seen == sentei._FROM
    assert {*sentei._FROM, "__version__"} == {*sentei.__all__}


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'sentei' has no attribute 'platoon'"):
        sentei.platoon  # noqa: B018


def test_the_package_alone_imports_neither_torch_nor_pydantic():
    code = "import sentei, sys; print({'torch', 'pydantic'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
