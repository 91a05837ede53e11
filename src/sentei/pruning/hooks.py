"""Hooks of modules that stay with the one module they were made for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Hook:
    """A hook of one module, which its deep copies and pickles do not carry on.

    Args:
        act: What it does; nothing in copies.
        before_copying: Done before the module's parts are copied or pickled.
    """

    def __init__(self, act: Any = None, before_copying: Callable[[], None] | None = None) -> None:
        self.act = act
        self._before_copying = before_copying

    def __call__(self, *args: Any) -> None:
        """Act, unless this is a copy."""
        if self.act is not None:
            self.act(*args)

    def __deepcopy__(self, memo: Any) -> Hook:
        self.__reduce__()
        return Hook()

    def __reduce__(self) -> Any:
        if self._before_copying is not None:
            self._before_copying()
        return Hook, ()
