"""The methods, one file each, discovered: a file here, or an entry point, is all it takes.

A method's file is named like the method and holds ``METHOD``, its card in short, whose ``build``
function makes the recipe. Packages add theirs through the entry-point group ``sentei.methods``,
each entry naming a :class:`Method`.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib
import pkgutil
import re
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from sentei.messages import did_you_mean, short
from sentei.methods.method import Card, Method

if TYPE_CHECKING:
    from sentei.recipe import Recipe

__all__ = ["Card", "Method", "cards", "find", "known", "published"]

_ON_CARD = ("name", "summary", "paper")
_COST = re.compile(r"^Cost: \D*(\d+) bytes? a weight", re.M)


def _modules() -> list[str]:
    return [name for _, name, _ in pkgutil.iter_modules(__path__) if name != "method"]


@cache
def _all() -> dict[str, Method]:
    methods = [importlib.import_module(f"{__name__}.{name}").METHOD for name in _modules()]
    methods += _third_party()
    names = [method.name for method in methods]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two methods are called {twice[0]!r}: remove the package of one of them")
    return dict(zip(names, methods, strict=True))


def _third_party() -> list[Method]:
    """What other packages add through the entry-point group ``sentei.methods``.

    Importing them is what makes their parts known by kind.

    Raises:
        ValueError: One of them cannot be imported; names it.
    """
    loaded = list[Method]()
    for entry in entry_points(group="sentei.methods"):
        try:
            loaded.append(entry.load())
        except Exception as error:  # whatever a foreign module does when it is imported
            raise ValueError(
                f"the method {entry.name!r}, added by {entry.value}, cannot be loaded "
                f"({type(error).__name__}: {error}): update or remove that package"
            ) from error
    return loaded


def known(pattern: str = "*") -> list[Method]:
    """The methods whose names match a glob, by name."""
    return [method for name, method in sorted(_all().items()) if fnmatch.fnmatch(name, pattern)]


def cards(pattern: str = "*") -> list[Card]:
    """The cards of the methods whose names match a glob, by name.

    Ours are read in their files: to import these takes torch, and seconds.
    """
    listed = [_read_card(Path(__path__[0], f"{name}.py")) for name in _modules()]
    listed += [method.card for method in _third_party()]
    listed.sort(key=lambda card: card.name)
    return [card for card in listed if fnmatch.fnmatch(card.name, pattern)]


def _read_card(file: Path) -> Card:
    """The card of a method's file: what ``METHOD`` declares, and the cost that its head states."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    declared = dict[str, str]()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "METHOD":
            assert isinstance(node.value, ast.Call)
            words = {str(word.arg): word.value for word in node.value.keywords}
            declared = {name: ast.literal_eval(words[name]) for name in _ON_CARD}
    cost = _COST.search(ast.get_docstring(tree) or "")
    assert declared and cost, f"{file}: a method's file declares METHOD, and its head the cost"
    return Card(**declared, bytes_per_weight=int(cost[1]))


def find(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: There is none; names the nearest.
    """
    methods, name = _all(), str(name)[:60]  # a file may say anything
    if name not in methods:
        hint = did_you_mean(name, methods)
        raise ValueError(f"no method {short(name)}{hint} (known: {', '.join(sorted(methods))})")
    return methods[name]


def published(name: str, sparsity: float | None = None, **arguments: object) -> Recipe:
    """A method's recipe with its authors' settings, where its defaults are others.

    Those of leap, movement, soft_movement, l0 and knowledge_aware are for trainings of tens of
    thousands of steps; the defaults are made for short ones too.

    Args:
        name: The method, such as "leap".
        sparsity: Fraction of the prunable weights to remove, in [0, 1) [default: the method's].
        **arguments: Of the method, in place of the published ones.

    Raises:
        ValueError: There is no such method, or its defaults are not apart from the published
            settings.
    """
    method = find(name)
    if not method.published:
        apart = ", ".join(other.name for other in known() if other.published)
        raise ValueError(
            f"{method.name} has no published settings apart from its defaults: say {method.name} "
            f"alone (apart are those of {apart})"
        )
    places = () if sparsity is None else (sparsity,)
    return method.build(*places, **{**method.published, **arguments})
