"""The methods, one file each, discovered: a file here, or an entry point, is all it takes.

A method's file is named like the method and holds ``METHOD``, its card in short, whose ``build``
function makes the recipe. Packages add theirs through the entry-point group ``sentei.methods``,
each entry naming a :class:`Method`.
"""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from sentei.messages import did_you_mean
from sentei.methods.method import Method

__all__ = ["Method", "find", "known"]


@cache
def _all() -> dict[str, Method]:
    modules = (name for _, name, _ in pkgutil.iter_modules(__path__) if name != "method")
    methods = [importlib.import_module(f"{__name__}.{name}").METHOD for name in modules]
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


def find(name: str) -> Method:
    """The method of that name.

    Raises:
        ValueError: There is none; names the nearest.
    """
    methods = _all()
    if name not in methods:
        hint = did_you_mean(name, methods)
        raise ValueError(f"no method {name!r}{hint} (known: {', '.join(sorted(methods))})")
    return methods[name]
