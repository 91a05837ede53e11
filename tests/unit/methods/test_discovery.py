"""Methods are found: ours by their files, other people's by entry points."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sentei
from sentei import methods
from sentei.methods import find, known
from sentei.recipe import Recipe
from sentei.run.recipes import make_recipe


def test_every_file_is_a_method():
    files = {path.stem for path in Path(methods.__path__[0]).glob("*.py")}
    names = {method.name for method in known()}
    assert names >= files - {"__init__", "method"} >= {"magnitude", "platon", "sensitivity"}
    assert [method.name for method in known()] == sorted(names)


def test_cards_are_filled_in():
    for method in known():
        assert isinstance(method.build(0.5), Recipe)
        assert method.summary and "\n" not in method.summary
        assert "arXiv" in method.paper


def test_published_settings_stand_beside_the_defaults():
    apart = {method.name for method in known() if method.published}
    assert apart >= {"leap", "movement", "soft_movement", "l0", "knowledge_aware"}
    for name in apart:
        recipe = sentei.published(name, 0.7)
        assert recipe.schedule.sparsity == 0.7 and recipe != find(name).build(0.7)
        assert recipe == find(name).build(0.7, **find(name).published)
    assert sentei.published("movement", push=1.0).penalties == sentei.movement(push=1.0).penalties
    assert sentei.published("leap").budget.settle is None
    with pytest.raises(ValueError, match=r"platon has no published settings apart .*\(apart are"):
        sentei.published("platon")
    with pytest.raises(ValueError, match="did you mean 'leap'"):
        sentei.published("leep")


def test_a_method_s_published_settings_by_one_word():
    assert make_recipe("leap:published", 0.7, None, []) == sentei.published("leap", 0.7)
    assert make_recipe("leap:published", None, None, []) == sentei.published("leap")
    for wrong, said in (
        ("leap:publishd", "say 'leap', or leap:published"),
        ("leep:published", "did you mean 'leap'"),
        ("auto:published", "auto has no published settings apart from its defaults"),
    ):
        with pytest.raises(ValueError, match=said):
            make_recipe(wrong, 0.5, None, [])


def test_patterns():
    assert [method.name for method in known("pla*")] == ["platon"]
    assert known("nothing*") == []


def test_find():
    assert find("platon").build is sentei.platon
    with pytest.raises(ValueError, match=r"no method 'plato'; did you mean 'platon'\?"):
        find("plato")
    with pytest.raises(ValueError, match=r"no method 'zzz' \(known: .*magnitude, .*platon"):
        find("zzz")


PACKAGE = """
from sentei.methods import Method
from sentei.methods.magnitude import magnitude


def build(sparsity=0.8, **settings):
    return magnitude(sparsity, **settings).model_copy(update={"method": "haiku"})


METHOD = Method("haiku", build, "says less", "Basho, 1686, arXiv 0000.00000")
"""

USE = """
from sentei.methods import find, known
from sentei.testing import check_counts

assert "haiku" in [method.name for method in known()], known()
check_counts(find("haiku"))
"""


def test_an_entry_point_is_a_method(tmp_path):
    (tmp_path / "haiku_pruning.py").write_text(PACKAGE)
    info = tmp_path / "haiku_pruning-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: haiku-pruning\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sentei.methods]\nhaiku = haiku_pruning:METHOD\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{USE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "haiku" not in [method.name for method in known()]
