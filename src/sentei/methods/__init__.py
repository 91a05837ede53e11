"""The methods, one file each, discovered: a file here, or an entry point, is all it takes.

A method's file is named like the method and holds ``METHOD``, its card in short, whose ``build``
function makes the recipe. Packages add theirs through the entry-point group ``sentei.methods``,
each entry naming a :class:`Method`.
"""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import pkgutil
from functools import cache

from sentei import recipe as recipes
from sentei.methods.method import Method

__all__ = ["Method", "find", "known"]


@cache
def _all() -> dict[str, Method]:
    modules = (name for _, name, _ in pkgutil.iter_modules(__path__) if name != "method")
    methods = [importlib.import_module(f"{__name__}.{name}").METHOD for name in modules]
    methods += recipes.third_party()
    names = [method.name for method in methods]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two methods are called {twice[0]!r}: remove the package of one of them")
    return dict(zip(names, methods, strict=True))


def known(pattern: str = "*") -> list[Method]:
    """The methods whose names match a glob, by name."""
    return [method for name, method in sorted(_all().items()) if fnmatch.fnmatch(name, pattern)]


def find(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: There is none; names the nearest.
    """
    methods = _all()
    if name not in methods:
        near = difflib.get_close_matches(name, methods, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no method {name!r}{hint} (known: {', '.join(sorted(methods))})")
    return methods[name]
