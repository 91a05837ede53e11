"""What waits for its first use: torch takes seconds to import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def lazily(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """The ``__getattr__`` of a package.

    Args:
        package: Its name, for the error.
        modules: The module that each of its public names is from; or is, where the names agree.
    """

    def get(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(modules[name])
        return module if modules[name] == f"{package}.{name}" else getattr(module, name)

    return get


def after_import(module: str, ready: Callable[[], None]) -> None:
    """Call a function once another's module is there: now if it is, else right after its import.

    Args:
        module: Its full name; it may never be imported, or not be installed.
        ready: What is to be called, once.
    """
    if module in sys.modules:
        ready()
    else:
        sys.meta_path.insert(0, _Waiting(module, ready))


class _Waiting(MetaPathFinder):
    """Lets others find the module, and has what runs its code call a function behind it."""

    def __init__(self, module: str, ready: Callable[[], None]) -> None:
        self.module, self.ready = module, ready

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's, once; None for all others."""
        del path, target
        if name != self.module or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_then_call(module: ModuleType) -> None:
                run(module)
                self.ready()

            vars(spec.loader)["exec_module"] = run_then_call  # of this module's loader alone
        return spec
